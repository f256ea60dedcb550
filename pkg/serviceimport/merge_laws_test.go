package serviceimport

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// drawExports draws the exports of up to five clusters. It uses so few values that
// exports often agree and often conflict.
func drawExports(t *rapid.T) []Export {
	var exports []Export
	for i := range rapid.IntRange(1, 5).Draw(t, "clusters") {
		e := Export{Cluster: fleet.ClusterName(fmt.Sprintf("c%d", i))}
		e.AcceptedAt = time.Unix(rapid.Int64Range(0, 3).Draw(t, "accepted"), 0)
		e.Spec.ExportedAt = metav1.Unix(rapid.Int64Range(0, 3).Draw(t, "exported"), 0)
		e.Spec.Service = v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}
		e.Spec.Type = rapid.SampledFrom([]v1alpha1.ServiceType{v1alpha1.ClusterSetIP, v1alpha1.Headless}).Draw(t, "type")
		e.Spec.SessionAffinity = rapid.SampledFrom([]corev1.ServiceAffinity{"None", "ClientIP"}).Draw(t, "affinity")
		e.Spec.Labels = rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2"}), 0, 2).Draw(t, "labels")
		e.Spec.IPFamilies = rapid.SampledFrom([][]corev1.IPFamily{nil, {"IPv4"}, {"IPv6"}, {"IPv4", "IPv6"}, {"IPv6", "IPv4"}}).Draw(t, "families")
		e.Spec.Ports = drawPorts(t)
		exports = append(exports, e)
	}
	return exports
}

// drawPorts draws the ports of a Service: names differ, and so do numbers of one protocol.
func drawPorts(t *rapid.T) []v1alpha1.ServicePort {
	drawn := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) v1alpha1.ServicePort {
		return v1alpha1.ServicePort{
			Name:     rapid.SampledFrom([]string{"", "http", "grpc"}).Draw(t, "name"),
			Protocol: rapid.SampledFrom([]corev1.Protocol{"TCP", "UDP"}).Draw(t, "protocol"),
			Port:     rapid.Int32Range(80, 82).Draw(t, "port"),
		}
	}), 0, 3, func(p v1alpha1.ServicePort) string { return p.Name }).Draw(t, "ports")
	var valid []v1alpha1.ServicePort
	for _, p := range drawn {
		if !slices.ContainsFunc(valid, func(v v1alpha1.ServicePort) bool { return v.Protocol == p.Protocol && v.Port == p.Port }) {
			valid = append(valid, p)
		}
	}
	return valid
}

// The order of the exports does not matter, and Merge does not change them.
func TestMergeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		var before []Export
		for _, e := range exports {
			before = append(before, Export{e.Cluster, e.AcceptedAt, *e.Spec.DeepCopy()})
		}
		merged := Merge(exports)
		merged.Import.Labels["changed"], merged.Import.IPFamilies = "x", append(merged.Import.IPFamilies, "x")
		if !reflect.DeepEqual(exports, before) {
			t.Fatal("Merge or its result changes its input")
		}
		shuffled := rapid.Permutation(exports).Draw(t, "order")
		if a, b := describeMerged(Merge(exports)), describeMerged(Merge(shuffled)); a != b {
			t.Fatalf("order matters:\n%s\n%s", a, b)
		}
	})
}

// Merge agrees with a second, naive implementation of KEP-1645 that has neither
// speed nor messages.
func TestMergeAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		got, want := Merge(exports), reference(exports)
		if g := got.Import; g.Type != want.kind || g.SessionAffinity != want.affinity || fmt.Sprint(g.Labels) != want.labels {
			t.Fatalf("properties are not the oldest export's: %+v, want %+v", g, want)
		}
		var offers []string
		for _, p := range got.Import.Ports {
			for _, e := range exports {
				if p.Clusters == nil || slices.Contains(p.Clusters, string(e.Cluster)) {
					offers = append(offers, fmt.Sprintf("%s %s %d %s", p.Name, p.Protocol, p.Port, e.Cluster))
				}
			}
		}
		slices.Sort(offers)
		if !slices.Equal(offers, want.offers) {
			t.Fatalf("ports:\n%s\nwant\n%s", strings.Join(offers, "\n"), strings.Join(want.offers, "\n"))
		}
		for _, e := range exports {
			c := got.Conditions[e.Cluster]
			if len(c) != 1 || c[0].Type != condition.ExportConflict || (c[0].Status == metav1.ConditionTrue) != want.conflict {
				t.Fatalf("%s has %+v, want a conflict: %v", e.Cluster, c, want.conflict)
			}
		}
	})
}

type referenceMerged struct {
	kind     v1alpha1.ServiceType
	affinity corev1.ServiceAffinity
	labels   string
	offers   []string // "name protocol number cluster"
	conflict bool
}

func reference(exports []Export) referenceMerged {
	left := slices.Clone(exports)
	var byAge []Export
	for len(left) > 0 {
		first := 0
		for i, e := range left {
			a, b := countsFrom(e), countsFrom(left[first])
			if a < b || a == b && e.Cluster < left[first].Cluster {
				first = i
			}
		}
		byAge = append(byAge, left[first])
		left = slices.Delete(left, first, first+1)
	}
	m := referenceMerged{kind: byAge[0].Spec.Type, affinity: byAge[0].Spec.SessionAffinity, labels: fmt.Sprint(byAge[0].Spec.Labels)}
	four, six := true, true
	var union []v1alpha1.ServicePort
	for _, e := range byAge {
		m.conflict = m.conflict || e.Spec.Type != m.kind || e.Spec.SessionAffinity != m.affinity || fmt.Sprint(e.Spec.Labels) != m.labels
		four = four && (e.Spec.IPFamilies == nil || slices.Contains(e.Spec.IPFamilies, "IPv4"))
		six = six && (e.Spec.IPFamilies == nil || slices.Contains(e.Spec.IPFamilies, "IPv6"))
		for _, p := range e.Spec.Ports {
			exists, conflicts := false, false
			for _, u := range union {
				exists = exists || u.Name == p.Name
			}
			for _, u := range union {
				conflicts = conflicts || u.Name == p.Name && u != p || !exists && u.Protocol == p.Protocol && u.Port == p.Port
			}
			m.conflict = m.conflict || conflicts
			if !exists && !conflicts {
				union = append(union, p)
			}
		}
	}
	m.conflict = m.conflict || !four && !six
	for _, u := range union {
		for _, e := range exports {
			for _, p := range e.Spec.Ports {
				if p.Name == u.Name && p.Protocol == u.Protocol {
					m.offers = append(m.offers, fmt.Sprintf("%s %s %d %s", u.Name, u.Protocol, u.Port, e.Cluster))
				}
			}
		}
	}
	slices.Sort(m.offers)
	return m
}

func countsFrom(e Export) int64 { return max(e.AcceptedAt.Unix(), e.Spec.ExportedAt.Unix()) }
