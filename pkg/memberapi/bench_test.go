package memberapi

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// A reader gets all of 10,000 slices of 10 endpoints, as each does that comes to a replica.
func BenchmarkInitialSlices10000(b *testing.B) {
	s := New(Start(noon, 7), nil)
	members := []v1alpha1.MemberCluster{(&model{}).member("a", "shop")}
	s.Apply(Changes{Members: &members}, noon)
	for i := range 10_000 {
		slice := &discoveryv1.EndpointSlice{TypeMeta: EndpointSlices.typeMeta(), AddressType: discoveryv1.AddressTypeIPv4}
		slice.Namespace, slice.Name = "shop", fmt.Sprintf("s%d", i)
		for k := range 10 {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, k)}, Zone: ptr.To("us-1"),
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}})
		}
		s.set(s.Slices, fleet.ObjectName{Namespace: slice.Namespace, Name: slice.Name}, func() content { return EndpointSlices.contentOf(slice.DeepCopy()) }, content{}, &Touched{})
	}
	reader := s.Reader("a")
	b.ReportAllocs()
	for b.Loop() {
		var text []byte
		size := 0
		for w, listed := NewWatch(reader, s.Slices, ""), false; !listed; size, text = size+len(text), text[:0] {
			events, _, err := w.Next(s)
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range events {
				if listed = e.Type == Listed; !listed {
					text = reader.AppendJSON(text, s.Slices, e)
				}
			}
		}
		b.SetBytes(int64(size))
	}
}
