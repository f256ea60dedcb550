package state

import (
	"fmt"
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// endpoint has conditions ready, serving and terminating, each "+" (true), "-" (false) or " " (unset).
func endpoint(address, conditions string) discoveryv1.Endpoint {
	condition := func(sign byte) *bool {
		return map[byte]*bool{'+': ptr.To(true), '-': ptr.To(false)}[sign]
	}
	return discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{
		Ready: condition(conditions[0]), Serving: condition(conditions[1]), Terminating: condition(conditions[2])}}
}

// sliceWith is a slice of import web of us-west whose port 80 is a number of the pods'.
func sliceWith(name string, family discoveryv1.AddressType, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := sliceOf("us-west", "web")
	s.Name, s.AddressType, s.Endpoints = name, family, endpoints
	s.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: &port}}
	return s
}

// The endpoints of slices as Kubernetes makes them that get requests.
func TestEndpointsThatGetRequests(t *testing.T) {
	const v4, v6 = discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for what, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want   []string
	}{
		"conditions that are not set have their defaults": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "   "), endpoint("10.1.0.2", "-  "), endpoint("10.1.0.3", " + "))},
			[]string{"10.1.0.1:8080", "10.1.0.3:8080"}},
		"published before they are ready, also while they terminate": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "+--"), endpoint("10.1.0.2", "++-"), endpoint("10.1.0.3", "+-+"))},
			[]string{"10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"}},
		"terminating ones get nothing beside ready ones": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "-++"), endpoint("10.1.0.2", "++-"))},
			[]string{"10.1.0.2:8080"}},
		"terminating ones that serve, where none is ready": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "-++"), endpoint("10.1.0.2", "--+"), endpoint("10.1.0.3", "-+-"))},
			[]string{"10.1.0.1:8080"}},
		"pods of a dual-stack Service count once": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "++-")), sliceWith("b", v6, 8080, endpoint("fd01::1", "++-"))},
			[]string{"10.1.0.1:8080"}},
		"IPv6 alone": {
			[]*discoveryv1.EndpointSlice{sliceWith("b", v6, 8080, endpoint("fd01::1", "++-"))},
			[]string{"[fd01::1]:8080"}},
		"a targetPort with a name that is another number in other pods": {
			[]*discoveryv1.EndpointSlice{sliceWith("a", v4, 8080, endpoint("10.1.0.1", "++-")), sliceWith("b", v4, 9090, endpoint("10.1.0.2", "++-"))},
			[]string{"10.1.0.1:8080", "10.1.0.2:9090"}},
	} {
		s, changes := New(Hub{}), NewChanges()
		changes.Members["us-west"] = &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}, Spec: v1alpha1.MemberClusterSpec{
			Accepted: true, Region: "us", EndpointCIDRs: []string{"10.1.0.0/24", "fd01::/64"}, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}}}
		for _, slice := range c.slices {
			changes.Slices[SliceKey("member-us-west/"+slice.Name)] = ReadSlice(slice)
		}
		s.Apply(changes)
		s.SetAssignments([]model.Assignment{{Key: "a", Backends: []model.WeightedBackend{{Backend: importNamed("web"), Port: 80, PortName: "tcp-80", Weight: 1}}}}, nil)
		s.Update(start)
		var got []string
		for _, l := range lbsync.Assign(s.AssignInput("a", "us")).Localities {
			for _, e := range l.Endpoints {
				got = append(got, fmt.Sprint(e))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
}
