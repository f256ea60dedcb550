package envoy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// large is one Gateway with so many hosts, each with a route to an assignment of its own.
func large(hosts int) lbsync.Program {
	p := lbsync.Program{Listeners: []lbsync.Listener{httpListener(80)}}
	p.Listeners[0].Chains[0].Hosts = nil
	for k := range hosts {
		key := fmt.Sprintf("shop/store-%d/6b2f", k)
		p.Listeners[0].Chains[0].Hosts = append(p.Listeners[0].Chains[0].Hosts,
			model.VirtualHost{Hostname: fmt.Sprintf("h%d.example", k), Rules: []model.Rule{{Match: prefix("/"), Forward: to(key)}}})
		p.Assignments = append(p.Assignments, model.Assignment{Key: key,
			Backends: []model.WeightedBackend{{Backend: importNamed("store"), Port: 80, Weight: 1}}})
	}
	return p
}

func BenchmarkTranslate(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := large(n)
			for b.Loop() {
				envoy.Translate(p)
			}
		})
	}
}

// One route of a large Gateway changes; the rest is remembered.
func BenchmarkOneRouteChanges(b *testing.B) {
	p := large(1000)
	var cache envoy.Cache
	cache.Translate(p)
	for n := 0; b.Loop(); n++ {
		hosts := slices.Clone(p.Listeners[0].Chains[0].Hosts)
		hosts[n%1000].Rules = []model.Rule{{Match: prefix(fmt.Sprint("/", n)), Forward: to("x")}}
		p.Listeners = []lbsync.Listener{httpListener(80, hosts...)}
		cache.Translate(lbsync.Program{Listeners: p.Listeners})
	}
}

// One assignment with 150 endpoints in 3 clusters.
func BenchmarkLoadAssignment(b *testing.B) {
	a := lbsync.LoadAssignment{Key: "shop/store/6b2f"}
	for c, cluster := range []string{"us-west", "us-east", "eu-west"} {
		l := lbsync.Locality{Backend: importNamed("store"), Cluster: "us-west", Weight: 333_333}
		l.Place.Region = cluster
		for k := range 50 {
			l.Endpoints = append(l.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(c), 0, byte(k)}), 8080))
		}
		a.Localities = append(a.Localities, l)
	}
	for b.Loop() {
		if _, err := envoy.LoadAssignment(a); err != nil {
			b.Fatal(err)
		}
	}
}
