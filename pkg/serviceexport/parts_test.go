package serviceexport

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
)

// largeSource is a slice of the member with endpoints 10.1.x.y, and its parts as the hub
// has them.
func largeSource(numbers []int, pushed []discoveryv1.EndpointSlice) Source {
	s := Source{Service: &corev1.Service{}, Slice: discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}}
	for _, n := range numbers {
		s.Slice.Endpoints = append(s.Slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", n/250, n%250+1)}})
	}
	for _, name := range PartNames(SliceName(&s.Slice)) {
		part := slices.IndexFunc(pushed, func(p discoveryv1.EndpointSlice) bool { return p.Name == name })
		if part < 0 {
			s.Pushed = append(s.Pushed, nil)
		} else {
			s.Pushed = append(s.Pushed, &pushed[part])
		}
	}
	return s
}

// changedParts are the names of the parts that two results do not have alike.
func changedParts(before, after []discoveryv1.EndpointSlice) []string {
	byName := map[string]discoveryv1.EndpointSlice{}
	for _, p := range before {
		byName[p.Name] = p
	}
	var changed []string
	for _, p := range after {
		if have, ok := byName[p.Name]; !ok || !equality.Semantic.DeepEqual(have, p) {
			changed = append(changed, p.Name)
		}
		delete(byName, p.Name)
	}
	return append(changed, slices.Sorted(maps.Keys(byName))...)
}

// However a large slice changes, the hub gets each endpoint once, in as few parts as they
// need and at most one more, none of them larger than it takes. One endpoint that comes
// or goes changes one part, where no part goes with it; nothing changes nothing.
func TestParts(t *testing.T) {
	all := make([]int, 1000)
	for i := range all {
		all[i] = i
	}
	rapid.Check(t, func(t *rapid.T) {
		var pushed []discoveryv1.EndpointSlice
		numbers := []int{}
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			before := len(numbers)
			shuffled := rapid.Permutation(all).Draw(t, "numbers")
			if rapid.Bool().Draw(t, "one changes") && before > 1 && before < 1000 {
				numbers = numbers[1:]
				if rapid.Bool().Draw(t, "one comes") {
					numbers = append(numbers, numbers[0], shuffled[slices.IndexFunc(shuffled, func(n int) bool { return !slices.Contains(numbers, n) })])
					numbers = numbers[1:]
				}
			} else {
				numbers = shuffled[:rapid.SampledFrom([]int{0, 1, 99, 100, 101, 150, 250, 500, 999, 1000}).Draw(t, "size")]
			}
			got := Strip("us-west", largeSource(numbers, pushed))
			checkParts(t, numbers, got)
			if again := changedParts(got, Strip("us-west", largeSource(numbers, got))); len(again) > 0 {
				t.Fatalf("no change changes %v", again)
			}
			pushed = got
		}
	})
}

func checkParts(t *rapid.T, numbers []int, parts []discoveryv1.EndpointSlice) {
	t.Helper()
	var got, want []string
	for _, p := range parts {
		if len(p.Endpoints) > fleet.MaxSliceEndpoints {
			t.Fatalf("%s has %d endpoints", p.Name, len(p.Endpoints))
		}
		for _, e := range p.Endpoints {
			got = append(got, e.Addresses...)
		}
	}
	for _, e := range largeSource(numbers, nil).Slice.Endpoints {
		want = append(want, e.Addresses...)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("of %d endpoints the hub gets %d", len(want), len(got))
	}
	if most := max(1, (len(numbers)+fleet.MaxSliceEndpoints-1)/fleet.MaxSliceEndpoints) + 1; len(parts) > most {
		t.Fatalf("%d endpoints are in %d parts, want at most %d", len(numbers), len(parts), most)
	}
}

// One endpoint that comes or goes is one changed part.
func TestOneEndpointChangesOnePart(t *testing.T) {
	var numbers []int
	for n := range 951 {
		numbers = append(numbers, n)
	}
	pushed := Strip("us-west", largeSource(numbers[1:], nil))
	if len(pushed) != 10 || len(pushed[9].Endpoints) != 50 {
		t.Fatalf("950 endpoints are in %d parts", len(pushed))
	}
	if changed := changedParts(pushed, Strip("us-west", largeSource(numbers, pushed))); !slices.Equal(changed, []string{pushed[9].Name}) {
		t.Errorf("an endpoint that comes, first by address, changes %v", changed)
	}
	if changed := changedParts(pushed, Strip("us-west", largeSource(slices.Delete(slices.Clone(numbers[1:]), 300, 301), pushed))); len(changed) != 1 {
		t.Errorf("an endpoint that goes changes %v", changed)
	}
}

// Half of the endpoints go from all parts: the others are moved together, and no more
// parts change than that takes.
func TestPartsAreJoined(t *testing.T) {
	var numbers, half []int
	for n := range 1000 {
		if numbers = append(numbers, n); n%2 == 0 {
			half = append(half, n)
		}
	}
	got := Strip("us-west", largeSource(half, Strip("us-west", largeSource(numbers, nil))))
	var sizes []int
	for _, p := range got {
		sizes = append(sizes, len(p.Endpoints))
	}
	if want := []int{100, 100, 100, 100, 50, 50}; len(got) != 6 || !slices.Equal(slices.Sorted(slices.Values(sizes)), slices.Sorted(slices.Values(want))) {
		t.Errorf("500 endpoints are in parts of %v, want %v", sizes, want)
	}
}

// The name of each part leads to the first, and no other name does.
func TestPartNames(t *testing.T) {
	source := largeSource(nil, nil)
	first := SliceName(&source.Slice)
	for _, name := range PartNames(first) {
		if FirstPart(name) != first {
			t.Errorf("the first part of %s is %s", name, FirstPart(name))
		}
	}
	for _, name := range []string{first, "web-p0", "web-p10", "-p1", "p1", "", "web-0123456789abcde1"} {
		if FirstPart(name) != name {
			t.Errorf("%s is taken for a part of %s", name, FirstPart(name))
		}
	}
}

// A zone that no label can have would be refused by the hub, and the slice with it.
func TestLongZone(t *testing.T) {
	source := largeSource([]int{1}, nil)
	long := strings.Repeat("z", 64)
	source.Slice.Endpoints[0].Zone = &long
	if got := Strip("us-west", source); got[0].Endpoints[0].Zone != nil {
		t.Errorf("zone %q", *got[0].Endpoints[0].Zone)
	}
}
