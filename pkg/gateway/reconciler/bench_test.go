package reconciler

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition/writer"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// sink is edges that take everything and say nothing.
type sink struct{ pushed int }

func (s *sink) count() int { return s.pushed }

func (s *sink) Publish(rollout.Snapshot)                                    { s.pushed++ }
func (s *sink) Progress(string) []rollout.EdgeProgress                      { return nil }
func (s *sink) Withdraw(string)                                             {}
func (s *sink) SetAssignments(_ []model.Assignment, _ []model.ImportPolicy) {}

// inputOf is one Gateway in two pools, with n routes to an import each.
func inputOf(n int) gateway.Input {
	in := gateway.Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shared", UID: "g", ResourceVersion: "1", Generation: 1},
			Spec: gatewayv1.GatewaySpec{GatewayClassName: "crossway", Listeners: []gatewayv1.Listener{{Name: "http", Port: 80, Protocol: "HTTP"}}}}},
		Namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
	}
	for i, name := range []string{"us", "eu"} {
		in.Pools = append(in.Pools, v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.EdgePoolSpec{Region: name, Addresses: []v1alpha1.AddressBlock{{CIDR: fmt.Sprintf("198.18.%d.0/24", i)}}},
			Status: v1alpha1.EdgePoolStatus{Allocations: []v1alpha1.AddressAllocation{
				{Gateway: v1alpha1.GatewayReference{Namespace: "shop", Name: "shared"}, Address: fmt.Sprintf("198.18.%d.1", i)}}}})
	}
	for i := range n {
		name := fmt.Sprintf("route-%04d", i)
		in.Routes = append(in.Routes, gateway.FromHTTPRoute(httpRoute(name, "/")))
		in.Imports = append(in.Imports, v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: name + ".shop"},
			Spec: v1alpha1.FleetServiceSpec{Service: v1alpha1.ServiceReference{Namespace: "shop", Name: name}, ServiceProperties: v1alpha1.ServiceProperties{Type: "ClusterSetIP"},
				Clusters: []v1alpha1.ExportingCluster{{Name: "us-west"}},
				Ports:    []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Port: 8080, Protocol: "TCP"}}}}})
	}
	return in
}

// httpRoute sends what is under a path to the import of its name.
func httpRoute(name, path string) *gatewayv1.HTTPRoute {
	ref := gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
		Group: new(gatewayv1.Group("multicluster.x-k8s.io")), Kind: new(gatewayv1.Kind("ServiceImport")),
		Name: gatewayv1.ObjectName(name), Port: new(gatewayv1.PortNumber(8080))}}}
	return &gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), ResourceVersion: "1", Generation: 1},
		Spec: gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Name: "shared"}}},
			Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(name + ".example.com")},
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: new(gatewayv1.PathMatchPathPrefix), Value: &path}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{ref}}}}}
}

// store is a cache of one route.
type store struct {
	cache.Cache
	get func(*gatewayv1.HTTPRoute)
}

func (s store) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	s.get(into.(*gatewayv1.HTTPRoute))
	return nil
}

// strict is one edge of each pool that refuses what it gets next.
type strict struct {
	sink
	last map[string]rollout.Snapshot
	next bool
}

func (s *strict) Publish(next rollout.Snapshot) {
	s.sink.Publish(next)
	s.last[next.Pool] = next
}

func (s *strict) Progress(pool string) []rollout.EdgeProgress {
	last := s.last[pool]
	g := rollout.EdgeProgress{Edge: rollout.Edge{Node: pool}, Stream: 1, Answered: last.Generation}
	if s.next {
		r := last.Resources.Routes[0]
		g.Nacked = []rollout.ResourceNack{{Resource: rollout.ResourceID{TypeURL: r.TypeURL, Name: r.Name}, Version: r.Version, Message: "no"}}
	}
	return []rollout.EdgeProgress{g}
}

// BenchmarkPass1000 is all that the hub does for one changed route of 1000 on
// one Gateway in two pools, from the event to the snapshots and the reports: as a
// rule, and while an edge of each pool refuses another route.
func BenchmarkPass1000(b *testing.B) {
	b.Run("accepted", func(b *testing.B) { benchmarkPass(b, &sink{}, func(func(string)) {}) })
	b.Run("refused", func(b *testing.B) {
		edges := &strict{last: map[string]rollout.Snapshot{}}
		benchmarkPass(b, edges, func(pass func(route string)) {
			pass("route-0400") // they have answered what was before
			edges.next = true
			pass("route-0300")
			edges.next = false
			if len(edges.last["us"].Overrides[1].Routes) != 1 {
				b.Fatal("nothing is refused")
			}
		})
	})
}

func benchmarkPass(b *testing.B, edges interface {
	Publisher
	Assigner
	count() int
}, before func(pass func(route string))) {
	const n = 1000
	in := inputOf(n)
	source := writer.New(writer.Options{}).Source("gateway", "Accepted")
	r := New(Options{Publisher: edges, Assigner: edges, Reporter: source, PoolReporter: noReporter{}})
	round, changed := 0, ""
	r.watchKinds([]watchedKind{{rolledOut: true, list: func(_ context.Context, _ client.Reader, into *gateway.Input) error {
		*into = in
		return nil
	}}, {route: &gateway.RouteKinds()[0], list: func(context.Context, client.Reader, *gateway.Input) error { return nil }}})
	r.options.Cache = store{get: func(into *gatewayv1.HTTPRoute) {
		*into = *httpRoute(changed, fmt.Sprint("/", round))
		into.ResourceVersion, into.Generation = fmt.Sprint(round+2), int64(round+2)
	}}
	pass := func(route string) {
		round++
		changed = route
		r.inbox.Add(func(p *pending) { p.routes.Insert(routeRef(route)) })
		if _, err := r.pass(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	pass("route-0500")
	before(pass)
	pass("route-0500")
	first, spent := edges.count(), cpu(b)
	b.ReportAllocs()
	for b.Loop() {
		pass("route-0500")
	}
	b.ReportMetric(float64((cpu(b)-spent).Microseconds())/1000/float64(b.N), "cpu-ms/op") // what a busy machine does not change
	if edges.count()-first < 2*b.N || len(r.result.Model.Assignments) != n {
		b.Fatalf("%d pushes of %d, %d assignments", edges.count()-first, b.N, len(r.result.Model.Assignments))
	}
}

// cpu is the time that this process has had on all cores.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
