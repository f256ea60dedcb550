package serviceimport

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// conflict is one property about which exports disagree.
type conflict struct {
	reason   string
	property string // `port "http"`, `sessionAffinity`
	winner   clusterValue
	losers   []clusterValue // oldest export first
	advice   string
}

// clusterValue is the value of a property in one cluster, as text.
type clusterValue struct {
	cluster fleet.ClusterName
	value   string
}

// maxLosersInMessage is how many disagreeing clusters a message names.
const maxLosersInMessage = 3

// message describes the conflict for one of the clusters: its own name is "here".
func (c conflict) message(to fleet.ClusterName) string {
	var others []string
	for _, l := range c.losers[:min(len(c.losers), maxLosersInMessage)] {
		others = append(others, l.text(to))
	}
	if more := len(c.losers) - maxLosersInMessage; more > 0 {
		others = append(others, fmt.Sprintf("another value in %d more clusters", more))
	}
	return fmt.Sprintf("%s is %s, which exported first and wins, and %s; %s",
		c.property, c.winner.text(to), strings.Join(others, ", "), c.advice)
}

func (v clusterValue) text(to fleet.ClusterName) string {
	where := "in " + string(v.cluster)
	if v.cluster == to {
		where = "here"
	}
	return strings.TrimSpace(v.value + " " + where)
}

// field is a property for which the FleetService takes the oldest export's value.
type field struct {
	name   string
	reason mcsv1beta1.ServiceExportConditionReason
	equal  func(a, b Export) bool
	value  func(Export) string
	labels func(Export) map[string]string // instead of value; a message shows only the keys that differ
}

// fields are all such properties of KEP-1645, in the order in which reasons are
// joined. Ports and IP families have rules of their own (ports.go).
var fields = []field{
	{
		name: "type", reason: mcsv1beta1.ServiceExportReasonTypeConflict,
		equal: func(a, b Export) bool { return a.Spec.Type == b.Spec.Type },
		value: func(e Export) string { return string(e.Spec.Type) },
	},
	{
		name: "sessionAffinity", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConflict,
		equal: func(a, b Export) bool { return affinity(a) == affinity(b) },
		value: func(e Export) string { return string(affinity(e)) },
	},
	{
		// not reported where the affinity itself differs
		name: "sessionAffinityConfig", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict,
		equal: func(a, b Export) bool {
			return affinity(a) != affinity(b) || apiequality.Semantic.DeepEqual(a.Spec.SessionAffinityConfig, b.Spec.SessionAffinityConfig)
		},
		value: affinityTimeout,
	},
	{
		name: "exported labels", reason: mcsv1beta1.ServiceExportReasonLabelsConflict,
		equal:  func(a, b Export) bool { return apiequality.Semantic.DeepEqual(a.Spec.Labels, b.Spec.Labels) },
		labels: func(e Export) map[string]string { return e.Spec.Labels },
	},
	{
		name: "exported annotations", reason: mcsv1beta1.ServiceExportReasonAnnotationsConflict,
		equal: func(a, b Export) bool {
			return apiequality.Semantic.DeepEqual(a.Spec.Annotations, b.Spec.Annotations)
		},
		labels: func(e Export) map[string]string { return e.Spec.Annotations },
	},
	{
		name: "internalTrafficPolicy", reason: mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict,
		equal: func(a, b Export) bool { return internalPolicy(a) == internalPolicy(b) },
		value: func(e Export) string { return string(internalPolicy(e)) },
	},
	{
		name: "trafficDistribution", reason: mcsv1beta1.ServiceExportReasonTrafficDistributionConflict,
		equal: func(a, b Export) bool { return distribution(a) == distribution(b) },
		value: distribution,
	},
}

// conflicts compares every export with the oldest. There is one conflict or none.
func (f field) conflicts(byAge []Export) []conflict {
	losers := slices.DeleteFunc(slices.Clone(byAge[1:]), func(e Export) bool { return f.equal(byAge[0], e) })
	if len(losers) == 0 {
		return nil
	}
	value := f.value
	if f.labels != nil {
		keys := keysThatDiffer(f.labels(byAge[0]), losers, f.labels)
		value = func(e Export) string { return labelsText(f.labels(e), keys) }
	}
	c := conflict{
		reason: string(f.reason), property: f.name,
		winner: clusterValue{byAge[0].Cluster, value(byAge[0])},
		advice: "make them equal in all clusters",
	}
	for _, e := range losers {
		c.losers = append(c.losers, clusterValue{e.Cluster, value(e)})
	}
	return []conflict{c}
}

// keysThatDiffer returns the keys that any loser has with another value than
// the winner, or that only one of the two has, sorted.
func keysThatDiffer(winner map[string]string, losers []Export, labels func(Export) map[string]string) []string {
	keys := map[string]bool{}
	for _, e := range losers {
		have := labels(e)
		for _, all := range []map[string]string{winner, have} {
			for k := range all {
				a, inWinner := winner[k]
				b, inHave := have[k]
				keys[k] = keys[k] || a != b || inWinner != inHave
			}
		}
	}
	maps.DeleteFunc(keys, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(keys))
}

func affinity(e Export) corev1.ServiceAffinity {
	return cmp.Or(e.Spec.SessionAffinity, corev1.ServiceAffinityNone) // the API's default
}

func affinityTimeout(e Export) string {
	c := e.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return "the default"
	}
	return "a timeout of " + strconv.Itoa(int(*c.ClientIP.TimeoutSeconds)) + " s"
}

func internalPolicy(e Export) corev1.ServiceInternalTrafficPolicy {
	return ptr.Deref(e.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) // the API's default
}

func distribution(e Export) string { return ptr.Deref(e.Spec.TrafficDistribution, "unset") }

// maxLabelsTextLength is how many bytes of labels a message has.
const maxLabelsTextLength = 80

// labelsText returns "{a=1, b=2}" of some keys, cut if it is long.
func labelsText(labels map[string]string, keys []string) string {
	var pairs []string
	for _, k := range keys {
		if v, ok := labels[k]; ok {
			pairs = append(pairs, k+"="+v)
		}
	}
	text := strings.Join(pairs, ", ")
	if len(text) > maxLabelsTextLength {
		text = strings.ToValidUTF8(text[:maxLabelsTextLength], "") + "..."
	}
	return "{" + text + "}"
}
