package state

import (
	"fmt"
	"net/netip"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Whoever writes slices of a Service of the hub's cluster by hand reaches no node, no other cluster and no API server with
// it: only the hub's own ranges count, and without any no address does.
func TestHubAddressesAreTheHubsOwn(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}}}
	slice.Namespace, slice.Name, slice.Labels = "shop", "web-1", map[string]string{discoveryv1.LabelServiceName: "web"}
	for _, a := range []string{"10.10.0.7", "192.168.0.1", "10.1.0.1", "169.254.169.254", "127.0.0.1"} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	web := fleet.Backend{Kind: fleet.Service, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}}
	for _, test := range []struct {
		cidrs []netip.Prefix
		want  string
	}{
		{[]netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")}, "[10.10.0.7]"},
		{nil, "[]"},
	} {
		s := New(Hub{CIDRs: test.cidrs})
		c := NewChanges()
		c.Slices["shop/web-1"] = ReadSlice(slice)
		s.Apply(c)
		s.SetAssignments([]model.Assignment{{Key: "a", Backends: []model.WeightedBackend{
			{Backend: web, Port: 80, PortName: "http", Weight: 1, Clusters: []fleet.ClusterName{fleet.HubCluster}}}}}, nil)
		s.Update(start)
		if got := fmt.Sprint(addressesOf(lbsync.Assign(s.AssignInput("a", "us")))); got != test.want {
			t.Errorf("with ranges %v: %s, want %s", test.cidrs, got, test.want)
		}
	}
}

func addressesOf(assigned lbsync.LoadAssignment) (addresses []netip.Addr) {
	for _, l := range assigned.Localities {
		for _, e := range l.Endpoints {
			addresses = append(addresses, e.Addr())
		}
	}
	return addresses
}
