package registration_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

var shopStore = fleet.ServiceName{Namespace: "shop", Name: "store"}

// admission lets a member announce 10.1.0.0/16 of namespaces shop and infra.
func admission(perService, all int) registration.Admission {
	return registration.Admission{Cluster: "us-west", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
		Namespaces: []v1alpha1.NamespacePattern{"shop", "infra"}, Limits: registration.Limits{EndpointsPerService: perService, Endpoints: all}}
}

// announced is a slice of a service, made at a minute, with n addresses from first on.
func announced(service fleet.ServiceName, minute int, first string, n int) registration.Announced {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "member-us-west", Name: fmt.Sprint(service, 99-minute, first), CreationTimestamp: metav1.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC),
		Labels: map[string]string{v1alpha1.LabelServiceNamespace: service.Namespace, v1alpha1.LabelServiceName: service.Name},
	}}
	address := netip.MustParseAddr(first)
	for range n {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address.String()}})
		address = address.Next()
	}
	a, ok := registration.ReadAnnounced(s)
	if !ok {
		panic("a slice without a service")
	}
	return a
}

// counted are the addresses of all slices that count for a service, each once.
func counted(e registration.Endpoints, all []registration.Announced) []netip.Addr {
	var out []netip.Addr
	for _, s := range all {
		for address := range s.Addresses {
			if e.Has(address) {
				out = append(out, address)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func TestEndpointsOfAMember(t *testing.T) {
	login := fleet.ServiceName{Namespace: "shop", Name: "login"}
	evil := fleet.ServiceName{Namespace: "kube-system", Name: "dns"}
	for _, c := range []struct {
		what               string
		perService, all    int
		slices             []registration.Announced
		service            fleet.ServiceName
		count, leftOut     int
		includes, excludes string
	}{
		{"within all limits", 10, 20, []registration.Announced{announced(shopStore, 1, "10.1.0.1", 10)}, shopStore, 10, 0, "10.1.0.10", ""},
		{"addresses outside of the ranges do not count", 10, 20, []registration.Announced{announced(shopStore, 1, "10.0.255.250", 20)}, shopStore, 10, 4, "10.1.0.0", "10.0.255.255"},
		{"the youngest slice is left out", 10, 20, []registration.Announced{announced(shopStore, 5, "10.1.0.1", 10), announced(shopStore, 1, "10.1.9.1", 10)}, shopStore, 10, 10, "10.1.9.1", "10.1.0.1"},
		{"the same address in many slices is one", 10, 20, []registration.Announced{announced(shopStore, 1, "10.1.0.1", 10), announced(shopStore, 2, "10.1.0.1", 10)}, shopStore, 10, 10, "10.1.0.10", ""},
		{"both families of the same pods", 10, 20, []registration.Announced{announced(shopStore, 1, "10.1.0.1", 10), announced(shopStore, 2, "fd00:1::1", 10)}, shopStore, 20, 0, "fd00:1::a", ""},
		{"all services of a member: older ones first", 10, 15, []registration.Announced{announced(login, 1, "10.1.1.1", 10), announced(shopStore, 2, "10.1.0.1", 10)}, shopStore, 5, 5, "10.1.0.5", "10.1.0.6"},
		{"a namespace that may not be exported takes no room", 10, 10, []registration.Announced{announced(evil, 1, "10.1.1.1", 10), announced(shopStore, 2, "10.1.0.1", 10)}, shopStore, 10, 0, "10.1.0.10", ""},
		{"nor has it endpoints", 10, 10, []registration.Announced{announced(evil, 1, "10.1.1.1", 10)}, evil, 0, 0, "", "10.1.1.1"},
	} {
		got := admission(c.perService, c.all).Endpoints(c.slices)[c.service]
		if n := len(counted(got, ofService(c.slices, c.service))); n != c.count || got.LeftOut() != c.leftOut {
			t.Errorf("%s: %d count and %d are left out, want %d and %d", c.what, n, got.LeftOut(), c.count, c.leftOut)
		}
		if c.includes != "" && !got.Has(netip.MustParseAddr(c.includes)) || c.excludes != "" && got.Has(netip.MustParseAddr(c.excludes)) {
			t.Errorf("%s: %s must count and %s must not", c.what, c.includes, c.excludes)
		}
	}
}

// Laws: whatever a member announces, in any order, the same endpoints count, no
// more than its limits, and a slice that is added displaces none that counted.
func TestEndpointsOfAMemberLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := admission(rapid.IntRange(1, 8).Draw(t, "per service"), rapid.IntRange(1, 12).Draw(t, "all"))
		services := []fleet.ServiceName{shopStore, {Namespace: "infra", Name: "auth"}, {Namespace: "other", Name: "x"}}
		var all []registration.Announced
		for i := range rapid.IntRange(0, 6).Draw(t, "slices") {
			first := fmt.Sprintf("10.%d.0.%d", rapid.IntRange(0, 1).Draw(t, "net"), rapid.IntRange(0, 20).Draw(t, "first"))
			all = append(all, announced(rapid.SampledFrom(services).Draw(t, "service"), i, first, rapid.IntRange(0, 9).Draw(t, "n")))
		}
		got := a.Endpoints(all)
		total := 0
		for _, service := range services {
			n := len(counted(got[service], ofService(all, service)))
			if n > a.Limits.EndpointsPerService {
				t.Fatalf("%d endpoints of %s count, limit %d", n, service, a.Limits.EndpointsPerService)
			}
			total += n
		}
		if total > a.Limits.Endpoints {
			t.Fatalf("%d endpoints count, limit %d", total, a.Limits.Endpoints)
		}
		for service, other := range a.Endpoints(rapid.Permutation(all).Draw(t, "order")) {
			if !slices.Equal(counted(other, all), counted(got[service], all)) {
				t.Fatalf("another order of the slices, other endpoints of %s", service)
			}
		}
		if len(all) == 0 {
			return
		}
		for service, before := range a.Endpoints(all[:len(all)-1]) { // without the youngest
			for _, address := range counted(before, ofService(all[:len(all)-1], service)) {
				if !got[service].Has(address) {
					t.Fatalf("a younger slice displaces %s of %s", address, service)
				}
			}
		}
	})
}

func ofService(all []registration.Announced, service fleet.ServiceName) []registration.Announced {
	return slices.DeleteFunc(slices.Clone(all), func(a registration.Announced) bool { return a.Service != service })
}
