package gateway

import (
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// Envoy closes the connections of a filter chain that changes in any byte, and those of all chains of a Listener of which
// anything else changes. Whatever happens to routes, and to other listeners of the same Gateway, a listener's filter chain
// and the fields of its port stay as they are.
func TestOthersNeverChangeAFilterChain(tb *testing.T) {
	compared := 0
	rapid.Check(tb, func(t *rapid.T) {
		in := genInput(tb).Draw(t, "input")
		owner := &in.Gateways[rapid.IntRange(0, len(in.Gateways)-1).Draw(t, "gateway")]
		mine := rapid.SampledFrom(owner.Spec.Listeners).Draw(t, "listener")
		mine.Name = "mine"
		if mine.Hostname != nil && !validHostname(strings.ToLower(string(*mine.Hostname))) {
			mine.Hostname = nil
		}
		others := func() (kept []gatewayv1.Listener) {
			for _, l := range genGateway(t).Spec.Listeners {
				if !clash(l, mine) {
					kept = append(kept, l)
				}
			}
			return kept
		}
		before := copyInput(in)
		at := slices.IndexFunc(before.Gateways, func(g gatewayv1.Gateway) bool { return g.UID == owner.UID })
		before.Gateways[at].Spec.Listeners = append(others(), mine)
		allocate(&before)

		after := copyInput(before)
		if rapid.Bool().Draw(t, "other routes") {
			after.Routes = adapted(genObjects(t, 0, 5, genRoute))
		}
		if rapid.Bool().Draw(t, "other listeners") {
			after.Gateways[at].Spec.Listeners = append(others(), mine)
		}
		if rapid.Bool().Draw(t, "memo") {
			after.Memo = Build(before).Memo
		}
		was, is := filterChains(before, *owner, mine), filterChains(after, *owner, mine)
		for name, l := range was {
			next := is[name]
			must(t, next != nil, "Listener %s is gone", name)
			must(t, next != nil && proto.Equal(l, next), "Listener %s:\n%v\nbecame\n%v", name, l, next)
			compared++
		}
	})
	if compared == 0 {
		tb.Errorf("no filter chains were compared")
	}
}

// clash says that two listeners cannot be served beside each other: both are then not served.
func clash(a, b gatewayv1.Listener) bool {
	host := func(l gatewayv1.Listener) string {
		if l.Hostname == nil {
			return ""
		}
		return string(*l.Hostname)
	}
	return a.Port == b.Port && (a.Protocol != b.Protocol || strings.EqualFold(host(a), host(b)))
}

// allocate gives every Gateway an address in every pool.
func allocate(in *Input) {
	for _, pool := range Allocate(*in) {
		at := slices.IndexFunc(in.Pools, func(p v1alpha1.EdgePool) bool { return p.Name == pool.Name })
		in.Pools[at].Status.Allocations = pool.Status.Allocations
	}
}

// filterChains are a Gateway's Envoy Listeners of one port, by pool, with the filter chain of one listener alone.
func filterChains(in Input, owner gatewayv1.Gateway, l gatewayv1.Listener) map[string]*listenerv3.Listener {
	found := map[string]*listenerv3.Listener{}
	m := Build(in).Model
	name := fleet.ObjectName{Namespace: owner.Namespace, Name: owner.Name}
	for _, pool := range in.Pools {
		p := lbsync.ProgramFor(m, lbsync.PoolRef{Pool: pool.Name, Region: pool.Spec.Region})
		p.Listeners = slices.DeleteFunc(p.Listeners, func(o lbsync.Listener) bool { return o.Gateway != name || o.Port != uint16(l.Port) })
		for _, resource := range envoy.Translate(p).Listeners {
			message, err := resource.Body.UnmarshalNew()
			if err != nil {
				continue
			}
			out := message.(*listenerv3.Listener)
			out.FilterChains = slices.DeleteFunc(out.FilterChains, func(c *listenerv3.FilterChain) bool {
				return l.Protocol == gatewayv1.HTTPSProtocolType && c.Name != string(l.Name)
			})
			if len(out.FilterChains) > 0 {
				found[pool.Name] = out
			}
		}
	}
	return found
}
