package endpoints

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// fixture is a Loop without informers and goroutines: tests add objects and call passes. The edges have what was published
// last.
type fixture struct {
	*Loop
	t       testing.TB
	clock   *clocktesting.FakeClock
	edges   *fakeEdges
	reports []condition.Report
}

// fakeEdges is a Publisher that keeps what each pool has, and what the last calls changed.
type fakeEdges struct {
	mu      sync.Mutex
	pools   map[string]map[string]envoy.Resource
	changed []string // pool:key
	calls   int
}

func (h *fakeEdges) UpdateLoadAssignments(pool string, changed []envoy.Resource, removed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	if h.pools[pool] == nil {
		h.pools[pool] = map[string]envoy.Resource{}
	}
	for _, r := range changed {
		h.pools[pool][r.Name] = r
		h.changed = append(h.changed, pool+":"+r.Name)
	}
	for _, name := range removed {
		delete(h.pools[pool], name)
	}
}

func (h *fakeEdges) takeChanged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.changed)
	out := strings.Join(h.changed, " ")
	h.changed = nil
	return out
}

// taken are the load assignments of a pool that changed since the last call.
func (h *fakeEdges) taken(pool string) map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq(h.takeChanged()) {
		if of, key, _ := strings.Cut(name, ":"); of == pool {
			names[key] = true
		}
	}
	return names
}

func (h *fakeEdges) versions(pool string) map[string]string {
	out := map[string]string{}
	for name, r := range h.pools[pool] {
		out[name] = r.Version
	}
	return out
}

func (f *fixture) Report(reports []condition.Report) { f.reports = reports }

// newFixture has pools us (nearest eu) and eu, members us-west, us-east in us and eu-west in eu, with the ranges
// 10.1, 10.2 and 10.3.
func newFixture(t testing.TB) *fixture {
	return newReplica(t, clocktesting.NewFakeClock(time.Unix(1_800_000_000, 0)), Config{})
}

// newReplica is newFixture with a clock and links to other replicas.
func newReplica(t testing.TB, clock *clocktesting.FakeClock, config Config) *fixture {
	f := &fixture{t: t, clock: clock, edges: &fakeEdges{pools: map[string]map[string]envoy.Resource{}}}
	config.Publisher, config.Reporter, config.Clock, config.Hub.Place = f.edges, f, f.clock, fleet.Place{Region: "us", Zone: "us-h"}
	f.Loop = New(config)
	f.pool("us", "us", "eu")
	f.pool("eu", "eu", "us")
	f.member("us-west", "us", "10.1.0.0/16", 100)
	f.member("us-east", "us", "10.2.0.0/16", 100)
	f.member("eu-west", "eu", "10.3.0.0/16", 100)
	close(f.synced)
	return f
}

func (f *fixture) run() { f.pass() }

func (f *fixture) pool(name, region string, nearest ...string) {
	p := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgePoolSpec{Region: region, Nearest: nearest}}
	f.inbox.poolHandler().OnAdd(p, false)
}

func (f *fixture) member(name, region, cidr string, scaler int32) {
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	m.Spec = v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: region, Zone: region + "-a", EndpointCIDRs: []string{cidr}, Capacity: v1alpha1.MemberCapacity{Scaler: &scaler}}
	f.inbox.memberHandler().OnAdd(m, false)
}

// memberSlice is a slice as an agent pushes it, port 8080 named http.
func memberSlice(cluster, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = "member-"+cluster, service+"-1"
	s.Labels = map[string]string{v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop", v1alpha1.LabelSourceCluster: cluster}
	name, port := "http", int32(8080)
	s.Ports = []discoveryv1.EndpointPort{{Name: &name, Port: &port}}
	for _, a := range addresses {
		ready := true
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

func (f *fixture) slice(s *discoveryv1.EndpointSlice) { f.inbox.sliceHandler().OnAdd(s, false) }

// import2 has two pods in each of us-west and eu-west.
func (f *fixture) import2(service string, n int) {
	f.slice(memberSlice("us-west", service, fmt.Sprintf("10.1.%d.1", n), fmt.Sprintf("10.1.%d.2", n)))
	f.slice(memberSlice("eu-west", service, fmt.Sprintf("10.3.%d.1", n), fmt.Sprintf("10.3.%d.2", n)))
}

func prefixes(cidrs ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range cidrs {
		out = append(out, netip.MustParsePrefix(c))
	}
	return out
}

func backend(service string) fleet.Backend {
	return fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: service}}
}

func assignmentOf(key string, services ...string) model.Assignment {
	a := model.Assignment{Key: key, Route: fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: key}}}
	for _, s := range services {
		a.Backends = append(a.Backends, model.WeightedBackend{Backend: backend(s), Port: 80, PortName: "http", Weight: 1})
	}
	return a
}

func rated(service string, rate float64) model.ImportPolicy {
	return model.ImportPolicy{Backend: backend(service), Rate: rate, Mode: model.Waterfall,
		Policy: fleet.ObjectName{Namespace: "shop", Name: service + "-policy"}, Generation: 1}
}

// report is one second's load of an edge of us for one assignment: requests that succeeded, by cluster.
func (f *fixture) report(edge Edge, key, service string, served map[string]uint64) {
	load := Load{Assignment: key, Interval: time.Second}
	for cluster, n := range served {
		load.Localities = append(load.Localities, LocalityLoad{SubZone: cluster + "/shop/" + service, Issued: n, Succeeded: n})
	}
	f.ObserveLoad(edge, []Load{load})
}

// shares reads the shares in force from a version that an edge holds.
func (f *fixture) shares(pool, key string) string {
	_, shares, _ := strings.Cut(f.edges.pools[pool][key].Version, ";")
	return shares
}

// heldOut lists the members of an import that are held out in region us.
func (f *fixture) heldOut(service string) []traffic.HeldOutMember {
	b, _ := f.state.Backend(backend(service))
	for _, r := range b.Regions {
		if r.Region == "us" {
			return r.HeldOut
		}
	}
	return nil
}
