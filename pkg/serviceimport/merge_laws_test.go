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
	"k8s.io/utils/ptr"
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
		exports = append(exports, drawExport(t, fmt.Sprintf("c%d", i)))
	}
	return exports
}

func drawExport(t *rapid.T, cluster string) Export {
	e := Export{Cluster: fleet.ClusterName(cluster), Generation: 1}
	e.AcceptedAt = time.Unix(rapid.Int64Range(0, 3).Draw(t, "accepted"), 0)
	e.Spec.ExportedAt = metav1.Unix(rapid.Int64Range(0, 3).Draw(t, "exported"), 0)
	e.Spec.ExportUID = rapid.SampledFrom([]string{"1", "2"}).Draw(t, "uid")
	e.Spec.Service = v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}
	e.Spec.Type = rapid.SampledFrom([]v1alpha1.ServiceType{v1alpha1.ClusterSetIP, v1alpha1.Headless}).Draw(t, "type")
	e.Spec.SessionAffinity = rapid.SampledFrom([]corev1.ServiceAffinity{"None", "ClientIP"}).Draw(t, "affinity")
	if e.Spec.SessionAffinity == "ClientIP" {
		e.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
			TimeoutSeconds: ptr.To(rapid.Int32Range(1, 2).Draw(t, "timeout"))}}
	}
	sets := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2"}), 0, 2)
	e.Spec.Labels, e.Spec.Annotations = sets.Draw(t, "labels"), sets.Draw(t, "annotations")
	e.Spec.InternalTrafficPolicy = rapid.SampledFrom([]*corev1.ServiceInternalTrafficPolicy{nil, ptr.To(corev1.ServiceInternalTrafficPolicyLocal)}).Draw(t, "internal")
	e.Spec.TrafficDistribution = rapid.SampledFrom([]*string{nil, ptr.To("PreferClose")}).Draw(t, "distribution")
	e.Spec.IPFamilies = rapid.SampledFrom([][]corev1.IPFamily{nil, {"IPv4"}, {"IPv6"}, {"IPv4", "IPv6"}, {"IPv6", "IPv4"}}).Draw(t, "families")
	e.Spec.Ports = drawPorts(t)
	return e
}

// drawPorts draws the ports of a Service: names differ, and so do numbers of one protocol.
func drawPorts(t *rapid.T) []v1alpha1.ServicePort {
	drawn := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) v1alpha1.ServicePort {
		return v1alpha1.ServicePort{
			Name:        rapid.SampledFrom([]string{"", "http", "grpc"}).Draw(t, "name"),
			Protocol:    rapid.SampledFrom([]corev1.Protocol{"TCP", "UDP"}).Draw(t, "protocol"),
			Port:        rapid.Int32Range(80, 82).Draw(t, "port"),
			AppProtocol: rapid.SampledFrom([]*string{nil, ptr.To("h2c")}).Draw(t, "appProtocol"),
		}
	}), 0, 3, func(p v1alpha1.ServicePort) string { return p.Name }).Draw(t, "ports")
	var valid []v1alpha1.ServicePort
	for _, p := range drawn {
		if !slices.ContainsFunc(valid, func(v v1alpha1.ServicePort) bool { return portIDOf(v) == portIDOf(p) }) {
			valid = append(valid, p)
		}
	}
	return valid
}

// drawChange draws what becomes of exports: some go, some change, one may be new.
func drawChange(t *rapid.T, exports []Export) []Export {
	var next []Export
	for _, e := range exports {
		switch rapid.IntRange(0, 3).Draw(t, "change") {
		case 0: // goes
		case 1:
			next = append(next, drawExport(t, string(e.Cluster)))
		default:
			next = append(next, e)
		}
	}
	if rapid.Bool().Draw(t, "new") {
		name := fmt.Sprintf("n%d", rapid.IntRange(0, 3).Draw(t, "cluster"))
		if !slices.ContainsFunc(next, func(e Export) bool { return string(e.Cluster) == name }) {
			next = append(next, drawExport(t, name))
		}
	}
	return next
}

// recordedBy returns the exports with their records as a merge left them.
func recordedBy(m Merged, exports []Export) []Export {
	recorded := slices.Clone(exports)
	for i := range recorded {
		if seen, ok := m.Seen[recorded[i].Cluster]; ok {
			recorded[i].Seen = &seen
		}
	}
	return recorded
}

// withoutRecords is an import without what says who is senior.
func withoutRecords(m Merged) string {
	m.Import = m.Import.DeepCopy()
	m.Import.Former = nil
	return describeMerged(m)
}

// The order of the exports does not matter, and Merge does not change them.
func TestMergeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		last := Merge(drawExports(t), nil).Import
		var before []Export
		for _, e := range exports {
			e.Spec = *e.Spec.DeepCopy()
			before = append(before, e)
		}
		lastBefore := last.DeepCopy()
		merged := Merge(exports, last)
		merged.Import.Labels, merged.Import.IPFamilies = map[string]string{}, append(merged.Import.IPFamilies, "x")
		for i := range merged.Import.Ports {
			merged.Import.Ports[i].AppProtocol, merged.Import.Ports[i].Name = ptr.To("changed"), "changed"
		}
		if !reflect.DeepEqual(exports, before) || !reflect.DeepEqual(last, lastBefore) {
			t.Fatal("Merge or its result changes its input")
		}
		shuffled := rapid.Permutation(exports).Draw(t, "order")
		if a, b := describeMerged(Merge(exports, last)), describeMerged(Merge(shuffled, last)); a != b {
			t.Fatalf("order matters:\n%s\n%s", a, b)
		}
	})
}

// Merge agrees, step by step, with a second, naive implementation of the rules
// that has neither speed nor records nor messages.
func TestMergeAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		var last Merged
		var want reference
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			last, want = Merge(exports, last.Import), want.merge(exports)
			if len(exports) == 0 {
				return
			}
			if got := valuesOf(last.Import.ServiceProperties, portsOf(last.Import)); !reflect.DeepEqual(got, want.values) {
				t.Fatalf("in force is %v, want %v", got, want.values)
			}
			if got := backingOf(last.Import); !reflect.DeepEqual(got, want.backing) {
				t.Fatalf("ports are backed by %v, want %v", got, want.backing)
			}
			for _, e := range exports {
				c := last.Conditions[e.Cluster]
				if len(c) != 1 || c[0].Type != condition.ExportConflict || (c[0].Status == metav1.ConditionTrue) != (len(want.conflicts) > 0) {
					t.Fatalf("%s has %+v, want conflicts about %v", e.Cluster, c, want.conflicts)
				}
				if strings.Contains(c[0].Reason, "PortConflict") != want.conflicts["ports"] {
					t.Fatalf("%s has %+v, want a conflict about ports: %v", e.Cluster, c, want.conflicts["ports"])
				}
			}
			exports = drawChange(t, exports)
		}
	})
}

// An export that comes later changes no property that is in force and takes no
// port from a cluster that backs it, whatever it says of itself, and however often it
// changes, goes and comes back.
func TestIncumbentsAreNotDisplaced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		var history History
		now := time.Unix(1_800_000_000, 0)
		first := history.Merge(exports, nil, now)
		inForce, backing := valuesOf(first.Import.ServiceProperties, portsOf(first.Import)), backingOf(first.Import)
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			with := slices.Clone(exports)
			if rapid.IntRange(0, 3).Draw(t, "there") > 0 {
				with = append(with, drawExport(t, "hostile"))
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			merged := history.Merge(recordedBy(first, with), nil, now)
			got, backs := valuesOf(merged.Import.ServiceProperties, portsOf(merged.Import)), backingOf(merged.Import)
			for key, value := range inForce {
				if got[key] != value {
					t.Fatalf("%s is %q, and was %q in force", key, got[key], value)
				}
			}
			for port, clusters := range backing {
				others := slices.DeleteFunc(slices.Clone(backs[port]), func(c string) bool { return c == "hostile" })
				if !slices.Equal(others, clusters) {
					t.Fatalf("%s is backed by %q, and was by %q", port, others, clusters)
				}
			}
		}
	})
}

// Exports that somebody deletes on the hub, one by one or all, and that agents push
// again in any order, are what they were.
func TestPushedAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		var history History
		now := time.Unix(1_800_000_000, 0)
		history.Merge(exports, nil, now)
		exports = drawChange(t, exports)
		if len(exports) == 0 {
			return
		}
		now = now.Add(returnTime) // what went before has gone for good
		want := withoutRecords(history.Merge(exports, nil, now))
		there := slices.Clone(exports)
		for _, next := range []string{"goes", "comes back"} {
			for _, e := range rapid.Permutation(exports).Draw(t, next) {
				if next == "goes" {
					there = slices.DeleteFunc(there, func(o Export) bool { return o.Cluster == e.Cluster })
				} else {
					there = append(there, e)
				}
				now = now.Add(time.Second)
				history.Merge(there, nil, now)
			}
		}
		if got := withoutRecords(history.Merge(exports, nil, now)); got != want {
			t.Fatalf("pushed again:\n%s\nbefore:\n%s", got, want)
		}
	})
}

// Either record is enough: with FleetServices or the status of MemberExports lost, a
// hub that restarts merges as before.
func TestEitherRecordIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		last := Merge(exports, nil)
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			if next := drawChange(t, exports); len(next) > 0 {
				exports, last = next, Merge(next, last.Import)
			}
		}
		want := withoutRecords(last)
		if got := withoutRecords(Merge(exports, last.Import)); got != want {
			t.Fatalf("without the records of MemberExports:\n%s\nwant\n%s", got, want)
		}
		recorded := recordedBy(last, exports)
		if got := withoutRecords(Merge(recorded, nil)); got != want && everyNameIsHeld(last.Import, exports) {
			t.Fatalf("without a FleetService:\n%s\nwant\n%s", got, want)
		}
		other := Merge(drawExports(t), nil).Import // of a replica that saw other changes, or edited by hand
		if got := withoutRecords(Merge(recorded, other)); got != want && everyNameIsHeld(last.Import, exports) {
			t.Fatalf("with another memory:\n%s\nwant\n%s", got, want)
		}
	})
}

// everyNameIsHeld: each port has a name that an export gives it. A port that keeps its last
// name because no other is free has its name from the last merge alone.
func everyNameIsHeld(i *v1alpha1.FleetServiceSpec, exports []Export) bool {
	return !slices.ContainsFunc(i.Ports, func(p v1alpha1.FleetServicePort) bool {
		return !slices.ContainsFunc(exports, func(e Export) bool {
			return slices.ContainsFunc(e.Spec.Ports, func(q v1alpha1.ServicePort) bool { return portIDOf(q) == portIDOf(p.ServicePort) && q.Name == p.Name })
		})
	})
}

// To merge again changes nothing.
func TestMergeAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		exports := drawExports(t)
		last := Merge(exports, Merge(drawExports(t), nil).Import)
		if again := Merge(exports, last.Import); describeMerged(again) != describeMerged(last) {
			t.Fatalf("merged again:\n%s\nbefore:\n%s", describeMerged(again), describeMerged(last))
		}
		if again := Merge(recordedBy(last, exports), last.Import); describeMerged(again) != describeMerged(last) {
			t.Fatalf("merged again with records:\n%s\nbefore:\n%s", describeMerged(again), describeMerged(last))
		}
	})
}
