package serviceimport

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// conflict is one thing that exports disagree about.
type conflict struct {
	reason string
	what   string // `port "http"`, `session affinity`
	winner said
	losers []said // oldest first
	advice string
}

// said is what one cluster says of the thing; value is empty where it is too
// long for a message.
type said struct {
	cluster fleet.ClusterName
	value   string
}

// spelled is how many disagreeing clusters a message names.
const spelled = 3

// message tells the conflict to one of the clusters, which reads "here" for itself.
func (c conflict) message(to fleet.ClusterName) string {
	var others []string
	for _, l := range c.losers[:min(len(c.losers), spelled)] {
		others = append(others, l.text(to))
	}
	if more := len(c.losers) - spelled; more > 0 {
		others = append(others, fmt.Sprintf("another value in %d more clusters", more))
	}
	return fmt.Sprintf("%s is %s, which exported first and wins, and %s; %s",
		c.what, c.winner.text(to), strings.Join(others, ", "), c.advice)
}

func (s said) text(to fleet.ClusterName) string {
	where := "in " + string(s.cluster)
	if s.cluster == to {
		where = "here"
	}
	return strings.TrimSpace(s.value + " " + where)
}

// field is a property of which the oldest export's value holds for all.
type field struct {
	what   string
	reason mcsv1beta1.ServiceExportConditionReason
	equal  func(a, b Export) bool
	value  func(Export) string
	set    func(Export) map[string]string // instead of value: only what differs is spelled out
}

// fields are all of them, in the order in which reasons are joined (KEP-1645;
// ports and IP families have rules of their own).
var fields = []field{
	{
		what: "type", reason: mcsv1beta1.ServiceExportReasonTypeConflict,
		equal: func(a, b Export) bool { return a.Spec.Type == b.Spec.Type },
		value: func(e Export) string { return string(e.Spec.Type) },
	},
	{
		what: "sessionAffinity", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConflict,
		equal: func(a, b Export) bool { return affinity(a) == affinity(b) },
		value: func(e Export) string { return string(affinity(e)) },
	},
	{
		// where the affinity itself differs, its configuration is not worth a word
		what: "sessionAffinityConfig", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict,
		equal: func(a, b Export) bool {
			return affinity(a) != affinity(b) || apiequality.Semantic.DeepEqual(a.Spec.SessionAffinityConfig, b.Spec.SessionAffinityConfig)
		},
		value: affinityTimeout,
	},
	{
		what: "exported labels", reason: mcsv1beta1.ServiceExportReasonLabelsConflict,
		equal: func(a, b Export) bool { return apiequality.Semantic.DeepEqual(a.Spec.Labels, b.Spec.Labels) },
		set:   func(e Export) map[string]string { return e.Spec.Labels },
	},
	{
		what: "exported annotations", reason: mcsv1beta1.ServiceExportReasonAnnotationsConflict,
		equal: func(a, b Export) bool {
			return apiequality.Semantic.DeepEqual(a.Spec.Annotations, b.Spec.Annotations)
		},
		set: func(e Export) map[string]string { return e.Spec.Annotations },
	},
	{
		what: "internalTrafficPolicy", reason: mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict,
		equal: func(a, b Export) bool { return internalPolicy(a) == internalPolicy(b) },
		value: func(e Export) string { return string(internalPolicy(e)) },
	},
	{
		what: "trafficDistribution", reason: mcsv1beta1.ServiceExportReasonTrafficDistributionConflict,
		equal: func(a, b Export) bool { return distribution(a) == distribution(b) },
		value: distribution,
	},
}

// conflict compares every export with the oldest.
func (f field) conflict(aged []Export) []conflict {
	losers := slices.DeleteFunc(slices.Clone(aged[1:]), func(e Export) bool { return f.equal(aged[0], e) })
	if len(losers) == 0 {
		return nil
	}
	value := f.value
	if f.set != nil {
		keys := differing(f.set(aged[0]), losers, f.set)
		value = func(e Export) string { return spelledSet(f.set(e), keys) }
	}
	c := conflict{
		reason: string(f.reason), what: f.what,
		winner: said{aged[0].Cluster, value(aged[0])},
		advice: "make them equal in all clusters",
	}
	for _, e := range losers {
		c.losers = append(c.losers, said{e.Cluster, value(e)})
	}
	return []conflict{c}
}

// differing are the keys of which any of the losers says something else than
// the winner, sorted.
func differing(winner map[string]string, losers []Export, set func(Export) map[string]string) []string {
	keys := map[string]bool{}
	for _, e := range losers {
		have := set(e)
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
	if e.Spec.SessionAffinity == "" {
		return corev1.ServiceAffinityNone // the API's default
	}
	return e.Spec.SessionAffinity
}

func affinityTimeout(e Export) string {
	c := e.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return "the default"
	}
	return "a timeout of " + strconv.Itoa(int(*c.ClientIP.TimeoutSeconds)) + " s"
}

func internalPolicy(e Export) corev1.ServiceInternalTrafficPolicy {
	if e.Spec.InternalTrafficPolicy == nil {
		return corev1.ServiceInternalTrafficPolicyCluster // the API's default
	}
	return *e.Spec.InternalTrafficPolicy
}

func distribution(e Export) string {
	if e.Spec.TrafficDistribution == nil {
		return "unset"
	}
	return *e.Spec.TrafficDistribution
}

// maxSet is how much of a set of labels a message spells out, in bytes.
const maxSet = 80

// spelledSet is "{a=1, b=2}" of some keys, cut where it is long.
func spelledSet(set map[string]string, keys []string) string {
	var pairs []string
	for _, k := range keys {
		if v, found := set[k]; found {
			pairs = append(pairs, k+"="+v)
		}
	}
	text := strings.Join(pairs, ", ")
	if len(text) > maxSet {
		text = strings.ToValidUTF8(text[:maxSet], "") + "..."
	}
	return "{" + text + "}"
}
