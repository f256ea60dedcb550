package state

import (
	"fmt"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
)

// limitOf lets us-west have n endpoints of one service.
func limitOf(s *State, n int32) {
	m := s.objects["us-west"].DeepCopy()
	m.Spec.Exports.MaxEndpointsPerService = n
	c := NewChanges()
	c.Members["us-west"] = m
	s.Apply(c)
}

func endpointsOf(s *State, cluster fleet.ClusterName) []string {
	var out []string
	for _, l := range lbsync.Assign(s.AssignInput("a", "us")).Localities {
		for _, e := range l.Endpoints {
			if l.Cluster == cluster {
				out = append(out, e.String())
			}
		}
	}
	slices.Sort(out)
	return out
}

// Slices that give one address a number each for the same port are one endpoint,
// that of the oldest slice.
func TestSlicesDoNotMultiplyEndpoints(t *testing.T) {
	s := newFleet()
	c := NewChanges()
	for i := range 50 {
		slice := sliceOf("us-west", "web", "10.1.0.1", "10.1.0.2")
		slice.Name = fmt.Sprint("web-", i)
		slice.CreationTimestamp = metav1.NewTime(start.Add(time.Duration(i) * time.Second))
		slice.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(1000 + i))}}
		c.Slices[SliceKey("us-west/"+slice.Name)] = ReadSlice(slice)
	}
	s.Apply(c)
	s.Update(start)
	if got := endpointsOf(s, "us-west"); !slices.Equal(got, []string{"10.1.0.1:8080", "10.1.0.2:8080"}) {
		t.Errorf("50 slices with the same two addresses are endpoints %v", got)
	}
}

// Endpoints beyond the limit get nothing; those of the oldest slice are kept, and
// a slice of another service changes nothing.
func TestLimitOfEndpoints(t *testing.T) {
	s := newFleet()
	limitOf(s, 3)
	s.Update(start)
	c := NewChanges()
	young := sliceOf("us-west", "web", "10.1.0.10", "10.1.0.11", "10.1.0.12")
	young.Name, young.CreationTimestamp = "web-2", metav1.NewTime(start)
	c.Slices["us-west/web-2"] = ReadSlice(young)
	s.Apply(c)
	if got := s.Update(start); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("changed: %v", got)
	}
	if got := endpointsOf(s, "us-west"); !slices.Equal(got, []string{"10.1.0.10:8080", "10.1.0.1:8080", "10.1.0.2:8080"}) {
		t.Errorf("with a limit of 3: %v", got)
	}
	limitOf(s, 4)
	s.Update(start)
	if got := endpointsOf(s, "us-west"); len(got) != 4 {
		t.Errorf("with a limit of 4: %v", got)
	}
}

// What one service has too much of is taken from another where the limit of the
// member is reached, and that other is encoded again.
func TestLimitOfAMemberConcernsOtherServices(t *testing.T) {
	s := newFleet()
	m := s.objects["us-west"].DeepCopy()
	m.Spec.Exports.MaxEndpoints = 4
	c := NewChanges()
	c.Members["us-west"] = m
	s.Apply(c)
	s.Update(start)
	c = NewChanges()
	old := sliceOf("us-west", "api", "10.1.0.3", "10.1.0.4", "10.1.0.5") // made at the same time as the other; its name is first
	c.Slices["us-west/api"] = ReadSlice(old)
	s.Apply(c)
	if got := s.Update(start); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("changed: %v", got)
	}
	if got := endpointsOf(s, "us-west"); !slices.Equal(got, []string{"10.1.0.1:8080"}) {
		t.Errorf("what is left: %v", got)
	}
}

// A namespace that the member may not export has no endpoints.
func TestEndpointsNeedConsent(t *testing.T) {
	s := newFleet()
	m := s.objects["us-west"].DeepCopy()
	m.Spec.Exports.Namespaces = nil
	c := NewChanges()
	c.Members["us-west"] = m
	s.Apply(c)
	s.Update(start)
	if got := endpointsOf(s, "us-west"); len(got) > 0 {
		t.Errorf("endpoints %v of a namespace that the member may not export", got)
	}
}

func readyOf(s *State, service string, cluster fleet.ClusterName) int {
	for _, m := range s.backends[importNamed(service)].members {
		if m.Cluster == cluster {
			return m.Ready
		}
	}
	return 0
}

// A member that announces a hundred times as many endpoints gets its weight in
// steps, each without a further change; where the other has none left, at once.
func TestPaceOfWeight(t *testing.T) {
	s := newFleet()
	addresses := make([]string, 200)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.1.0.%d", i+1)
	}
	c := NewChanges()
	c.Slices["us-west/web"] = ReadSlice(sliceOf("us-west", "web", addresses...))
	s.Apply(c)
	now := start.Add(time.Minute)
	for i, want := range []int{4, 8, 16, 32, 64, 128, 200} {
		s.Update(now)
		if got := readyOf(s, "web", "us-west"); got != want {
			t.Fatalf("after %d windows %d of 200 endpoints count, want %d", i, got, want)
		}
		now = now.Add(10 * time.Second)
	}

	s = newFleet()
	c = NewChanges()
	c.Slices["us-west/web"] = ReadSlice(sliceOf("us-west", "web", addresses...))
	c.Slices["eu-west/web"] = nil
	s.Apply(c)
	s.Update(start)
	if got := readyOf(s, "web", "us-west"); got != 200 {
		t.Errorf("%d of 200 endpoints count where the other member has none", got)
	}
}

// What a member may write beyond its limits (as many slices as its quota takes, in
// each as many endpoints as the hub's policy takes) costs the hub's state less than
// 64 MB, and changes no byte of what edges get of a neighbour.
func TestWhatExceedsLimitsIsCheap(t *testing.T) {
	s := newFleet()
	before := lbsync.Assign(s.AssignInput("b", "eu")) // import api, which the member exports, too
	var heap [2]runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&heap[0])
	m := s.objects["us-west"].DeepCopy()
	m.Spec.EndpointCIDRs = []string{"10.1.0.0/16", "10.64.0.0/10"}
	c := NewChanges()
	c.Members["us-west"] = m
	for key, slice := range hostileSlices() {
		c.Slices[key] = ReadSlice(slice)
	}
	s.Apply(c)
	s.Update(start)
	runtime.GC()
	runtime.ReadMemStats(&heap[1])
	megabytes := (int64(heap[1].HeapAlloc) - int64(heap[0].HeapAlloc)) >> 20
	t.Logf("140,000 endpoints, of which 2,000 count, take %d MB", megabytes)
	if megabytes > 64 {
		t.Errorf("%d MB", megabytes)
	}
	if got := len(endpointsOf(s, "us-west")); got != 2000 {
		t.Errorf("%d endpoints count, want 2000", got)
	}
	if after := lbsync.Assign(s.AssignInput("b", "eu")); !reflect.DeepEqual(before, after) {
		t.Error("another import changed")
	}
}

// One of 1400 slices of a member changes that has 70 times as many endpoints as count.
func BenchmarkFloodOfOneMember(b *testing.B) {
	s := newFleet()
	m := s.objects["us-west"].DeepCopy()
	m.Spec.EndpointCIDRs = []string{"10.1.0.0/16", "10.64.0.0/10"}
	c := NewChanges()
	c.Members["us-west"] = m
	all := hostileSlices()
	for key, slice := range all {
		c.Slices[key] = ReadSlice(slice)
	}
	s.Apply(c)
	now := start
	s.Update(now)
	for b.Loop() {
		c := NewChanges()
		c.Slices["us-west/web-7"] = ReadSlice(all["us-west/web-7"])
		s.Apply(c)
		now = now.Add(time.Millisecond)
		s.Update(now)
	}
}

// hostileSlices are as many slices of us-west as its quota takes, with as many endpoints
// as the hub takes in each.
func hostileSlices() map[SliceKey]*discoveryv1.EndpointSlice {
	all := map[SliceKey]*discoveryv1.EndpointSlice{}
	address := netip.MustParseAddr("10.64.0.1")
	for i := range 1400 {
		slice := sliceOf("us-west", "web")
		slice.Name, slice.CreationTimestamp = fmt.Sprint("web-", i), metav1.NewTime(start)
		for range 100 {
			zone := fmt.Sprintf("%060d", address.As4()[2])
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{address.String()}, Zone: &zone})
			address = address.Next()
		}
		all[SliceKey("us-west/"+slice.Name)] = slice
	}
	return all
}
