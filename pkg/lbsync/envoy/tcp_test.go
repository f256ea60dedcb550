package envoy_test

import (
	"net/netip"
	"strings"
	"testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// A TLS port: one server name is passed through to two backends, for another
// one TLS ends at the edge, and a broken one is closed. No routes are needed,
// and the assignments of all are part of the program.
func TestTCPChains(t *testing.T) {
	forward := func(rule int, targets ...model.L4Target) *model.L4Forward {
		ref := fleet.RouteRef{Kind: "TCPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: "db"}}
		return &model.L4Forward{Origin: model.Origin{Route: ref, Generation: 1, Rule: rule}, Targets: targets}
	}
	m := model.Model{
		Listeners: []model.Listener{{
			Gateway: fleet.ObjectName{Namespace: "infra", Name: "shared"}, Port: 5432, Protocol: model.TLS,
			Addresses: []model.Address{{Pool: "us", Address: netip.MustParseAddr("198.18.0.1")}},
			Chains: []model.Chain{
				{Name: "broken", ServerName: "broken.example", Reject: true},
				{Name: "db", ServerName: "db.example", TCP: forward(0, model.L4Target{Assignment: "a", Weight: 9}, model.L4Target{Weight: 1})},
				{Name: "ends", ServerName: "ends.example", Secrets: []string{"infra/cert"}, TCP: forward(1, model.L4Target{Assignment: "b", Weight: 1})},
			}}, {
			Gateway: fleet.ObjectName{Namespace: "infra", Name: "shared"}, Port: 9000, Protocol: model.TCP,
			Addresses: []model.Address{{Pool: "us", Address: netip.MustParseAddr("198.18.0.1")}},
			Chains:    []model.Chain{{Name: "plain", TCP: forward(2, model.L4Target{Assignment: "c", Weight: 1})}},
		}},
		Assignments: []model.Assignment{{Key: "a"}, {Key: "b"}, {Key: "c"}, {Key: "unused"}},
		Secrets:     []model.Secret{{Name: "infra/cert", Certificate: []byte("certificate"), PrivateKey: []byte("key")}},
	}
	program := lbsync.ProgramFor(m, lbsync.PoolRef{Pool: "us", Region: "us"})
	if len(program.Assignments) != 3 || len(program.Secrets) != 1 {
		t.Errorf("%d assignments and %d secrets", len(program.Assignments), len(program.Secrets))
	}
	r := envoy.Translate(program)
	if len(r.Faults)+len(r.Routes) != 0 || len(r.Listeners) != 2 {
		t.Fatalf("%d listeners, %d routes, faults %v", len(r.Listeners), len(r.Routes), r.Faults)
	}
	golden(t, "tcp", r.Listeners[0])
	if sources := r.Listeners[1].Sources; len(sources) != 2 || sources[1].Kind != "TCPRoute" {
		t.Errorf("sources %v", sources)
	}
	other := m
	other.Listeners = []model.Listener{m.Listeners[0], m.Listeners[1]}
	other.Listeners[1].Chains = []model.Chain{{Name: "plain", TCP: forward(2, model.L4Target{Assignment: "unused", Weight: 1})}}
	if lbsync.UseAlike(program.Listeners, lbsync.ListenersIn(other, lbsync.PoolRef{Pool: "us", Region: "us"})) {
		t.Error("another assignment of a TCP chain is not seen")
	}
	other.Listeners[1].Chains, other.Listeners[1].UDP = nil, forward(3, model.L4Target{Assignment: "unused", Weight: 1})
	if p := lbsync.ProgramFor(other, lbsync.PoolRef{Pool: "us", Region: "us"}); len(p.Listeners) != 1 {
		t.Error("a UDP port has no proxy yet, and is not an Envoy listener without chains")
	}
}

// A real Envoy takes a TCP chain and passes bytes on.
func TestTCPOnARealEnvoy(t *testing.T) {
	e := startEdge(t)
	blue, load := serve("blue", backend(t, "blue"))
	port := freePort(t)
	l := httpListener(port)
	l.Protocol, l.Chains = model.TCP, []model.Chain{{Name: "plain", TCP: &model.L4Forward{Targets: []model.L4Target{{Assignment: "blue", Weight: 1}}}}}
	e.apply(lbsync.Program{Assignments: []model.Assignment{blue}, Listeners: []lbsync.Listener{l}}, load)
	if got := ask(t, port, "GET", "a.example", "/", ""); !strings.HasPrefix(got, "200 blue") {
		t.Errorf("through the proxy: %q", got)
	}
}
