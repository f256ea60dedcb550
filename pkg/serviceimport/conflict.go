package serviceimport

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// conflict is something about which exports disagree.
type conflict struct {
	reason mcsv1beta1.ServiceExportConditionReason
	// message describes it to one of the clusters: its own name is "here".
	message func(to fleet.ClusterName) string
}

// disagreement is a conflict about the value of one property.
type disagreement struct {
	property string // `sessionAffinity`, `the name of port TCP 80`
	inForce  clusterValue
	losers   []clusterValue // the senior first
	advice   string
}

// clusterValue is the value of a property in one cluster, as text.
type clusterValue struct {
	cluster fleet.ClusterName
	value   string
}

// maxClustersInMessage is how many disagreeing clusters a message names.
const maxClustersInMessage = 3

func (d disagreement) message(to fleet.ClusterName) string {
	var others []string
	for _, l := range d.losers[:min(len(d.losers), maxClustersInMessage)] {
		others = append(others, l.value+" "+in(l.cluster, to))
	}
	if more := len(d.losers) - maxClustersInMessage; more > 0 {
		others = append(others, fmt.Sprintf("another value in %d more clusters", more))
	}
	return fmt.Sprintf("%s is %s, as %s, and %s; %s",
		d.property, d.inForce.value, in(d.inForce.cluster, to), strings.Join(others, ", "), d.advice)
}

func in(cluster, to fleet.ClusterName) string {
	if cluster == to {
		return "here"
	}
	return "in " + string(cluster)
}

// inClusters returns "here and in us-east, us-west and 2 more clusters".
func inClusters(clusters []fleet.ClusterName, to fleet.ClusterName) string {
	others := slices.DeleteFunc(slices.Clone(clusters), func(c fleet.ClusterName) bool { return c == to })
	var parts []string
	if len(others) < len(clusters) {
		parts = append(parts, "here")
	}
	var names []string
	for _, c := range others[:min(len(others), maxClustersInMessage)] {
		names = append(names, string(c))
	}
	if len(names) > 0 {
		parts = append(parts, "in "+strings.Join(names, ", "))
	}
	if more := len(others) - len(names); more > 0 {
		parts = append(parts, fmt.Sprintf("in %d more clusters", more))
	}
	return strings.Join(parts, " and ")
}

// keysThatDiffer returns the keys that any loser has with another value than
// the export with the value in force, or that only one of the two has, sorted.
func keysThatDiffer(inForce map[string]string, losers []Export, labels func(Export) map[string]string) []string {
	keys := map[string]bool{}
	for _, e := range losers {
		have := labels(e)
		for _, all := range []map[string]string{inForce, have} {
			for k := range all {
				a, one := inForce[k]
				b, other := have[k]
				keys[k] = keys[k] || a != b || one != other
			}
		}
	}
	maps.DeleteFunc(keys, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(keys))
}

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
