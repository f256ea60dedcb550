package reconciler

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
)

// fleetOfOne is a class, a pool, a Gateway and an import.
const fleetOfOne = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: NAME}
spec: {controllerName: crossway.dev/gateway}
---
apiVersion: crossway.dev/v1alpha1
kind: EdgePool
metadata: {name: NAME}
spec: {region: us, addresses: [{cidr: 198.18.1.0/24}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: NAME}
spec: {gatewayClassName: NAME, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: store, namespace: NAME}
spec: {ports: [{name: web, port: 80}]}`

// routeTo is a route for one path.
func routeTo(name, path string) string {
	return `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ` + name + `, namespace: NAME}
spec:
  parentRefs: [{name: shared}]
  hostnames: [store.example.com]
  rules: [{matches: [{path: {type: RegularExpression, value: "` + path + `"}}], backendRefs: [{name: store, port: 80}]}]`
}

func (h *hub) table() string { return h.name + "/shared/80" }

// From nothing to a Gateway that is programmed; its address is given once, and
// kept by the next hub and while the Gateway lives.
func TestGatewayIsProgrammed(t *testing.T) {
	h := newHub(t)
	h.start()
	h.apply(fleetOfOne)
	h.apply(routeTo("a", "/a"))
	h.pass()
	if n := len(h.edges.published[h.name].Listeners); n != 0 {
		t.Errorf("%d listeners before there is an address", n)
	}
	given := h.pool().Status.Allocations
	if len(given) != 1 || given[0].Gateway.Name != "shared" {
		t.Fatalf("allocations %+v", given)
	}

	h.awaitCaches(h.pool())
	h.pass()
	if n := len(h.edges.published[h.name].Listeners); n != 1 {
		t.Errorf("%d listeners, want 1", n)
	}
	if got := h.conditionOf(condition.Gateway, "shared", "Programmed"); got != "False Pending" {
		t.Errorf("Programmed without an edge: %s", got)
	}
	h.edges.connected, h.edges.lag = 2, 1
	h.pass()
	if got := h.conditionOf(condition.Gateway, "shared", "Programmed"); got != "False Pending" {
		t.Errorf("Programmed while edges have not answered: %s", got)
	}
	h.edges.lag = 0
	h.pass()
	if got := h.conditionOf(condition.Gateway, "shared", "Programmed"); got != "True Programmed" {
		t.Errorf("Programmed once edges have answered: %s", got)
	}
	if got := h.pool().Status; got.Edges != 2 || got.Conditions[0].Status != metav1.ConditionTrue {
		t.Errorf("EdgePool status %+v", got)
	}
	h.await("the Gateway's status says so", func() bool {
		gateway := &gatewayv1.Gateway{}
		h.must(h.api.Get(t.Context(), client.ObjectKey{Namespace: h.name, Name: "shared"}, gateway))
		return len(gateway.Status.Conditions) == 2 && gateway.Status.Conditions[1].Status == metav1.ConditionTrue
	})

	// The hub restarts; its edges are not back yet.
	h.edges.connected = 0
	h.start()
	h.pass()
	if got := h.conditionOf(condition.Gateway, "shared", "Programmed"); got != "True Programmed" {
		t.Errorf("Programmed after a restart: %s", got)
	}
	if again := h.pool().Status.Allocations; len(again) != 1 || again[0] != given[0] {
		t.Errorf("allocations went from %+v to %+v", given, again)
	}

	gateway := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: h.name, Name: "shared"}}
	h.must(h.api.Delete(t.Context(), gateway))
	gateway.SetGroupVersionKind(schema.GroupVersion(gatewayv1.GroupVersion).WithKind("Gateway"))
	h.awaitCaches(gateway)
	h.pass()
	if left := h.pool().Status.Allocations; len(left) != 0 {
		t.Errorf("allocations of a Gateway that is gone: %+v", left)
	}
}

// allocated is a fleet with an address and a connected edge.
func (h *hub) allocated() {
	h.Helper()
	h.start()
	h.apply(fleetOfOne)
	h.pass()
	h.awaitCaches(h.pool())
	h.edges.connected = 1
	h.pass()
}

// An edge NACKs a route that the hub accepts: the route that changed is left out
// and says so, also after a restart of the hub, until it changes; its
// neighbour's next change arrives.
func TestRefusedRoute(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a[0-9]+"))
	h.apply(routeTo("b", "/b[0-9]+"))
	h.pass()
	good := h.edges.route(h.name, h.table())
	h.loop.Acked(good.TypeURL, map[string]string{good.Name: good.Version})

	h.apply(routeTo("b", "/too(big|for)an[e]dge"))
	h.pass()
	bad := h.edges.route(h.name, h.table())
	h.loop.Nacked(bad.TypeURL, bad.Name, bad.Version, "RE2 program size too big")
	h.pass()
	left := h.edges.route(h.name, h.table())
	if bytes.Contains(left.Body.Value, []byte("too(big")) || !bytes.Contains(left.Body.Value, []byte("/a[0-9]+")) {
		t.Errorf("a bad route still there, or its neighbour gone: %q", left.Body.Value)
	}
	if a, b := h.conditionOf(condition.HTTPRoute, "a", "Accepted"), h.conditionOf(condition.HTTPRoute, "b", "Accepted"); a != "True Accepted" || b != "False RefusedByEdge" {
		t.Errorf("a is %s, b is %s", a, b)
	}

	h.apply(routeTo("a", "/changed[0-9]+"))
	h.pass()
	if !bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte("/changed[0-9]+")) {
		t.Error("the neighbour's next change does not arrive")
	}

	h.await("b's status has the rejection", func() bool { _, rejected := storedRejection(h.adaptedRoute("b")); return rejected })
	h.start()
	h.pass()
	if bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte("too(big")) {
		t.Error("a restart brings the rejected route back")
	}
	h.apply(routeTo("b", "/repaired[0-9]+"))
	h.pass()
	if !bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte("/repaired")) {
		t.Error("the repaired route stays out")
	}
	if b := h.conditionOf(condition.HTTPRoute, "b", "Accepted"); b != "True Accepted" {
		t.Errorf("repaired b is %s", b)
	}
}

// Three routes come at once, the edge NACKs one of them and does not say why: in
// the end only that one is left out.
func TestNeighboursOfARefusedRoute(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a[0-9]+"))
	h.apply(routeTo("b", "/too(big|for)an[e]dge"))
	h.apply(routeTo("c", "/c[0-9]+"))
	answered := map[string]bool{} // an edge is not asked twice
	for range 12 {
		h.pass()
		table := h.edges.route(h.name, h.table())
		if answered[table.Version] {
			continue
		}
		answered[table.Version] = true
		if bytes.Contains(table.Body.GetValue(), []byte("too(big")) {
			h.loop.Nacked(table.TypeURL, table.Name, table.Version, "no")
		} else {
			h.loop.Acked(table.TypeURL, map[string]string{table.Name: table.Version})
		}
	}
	for name, want := range map[string]string{"a": "True Accepted", "b": "False RefusedByEdge", "c": "True Accepted"} {
		if got := h.conditionOf(condition.HTTPRoute, name, "Accepted"); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if h.loop.rollout.HasWork() {
		t.Error("the loop does not come to rest")
	}
}

// reject writes into a route's status that an edge rejected it.
func (h *hub) reject(name string) *gatewayv1.HTTPRoute {
	h.Helper()
	var route *gatewayv1.HTTPRoute
	h.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // the status writer is at work, too
		route = h.storedRoute(name)
		rejection := condition.RouteRefusedByEdge("no")
		for i := range route.Status.Parents[0].Conditions {
			if c := &route.Status.Parents[0].Conditions[i]; c.Type == rejection.Type {
				c.Status, c.Reason, c.Message = rejection.Status, rejection.Reason, rejection.Message
			}
		}
		return h.api.Status().Update(h.Context(), route)
	}))
	route.SetGroupVersionKind(schema.GroupVersion(gatewayv1.GroupVersion).WithKind("HTTPRoute"))
	h.awaitCaches(route)
	return route
}

// Of a route that changes only that one is read, whatever happened to it; the others stay the objects that they were.
func TestOneRouteIsRead(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/first"))
	h.apply(routeTo("b", "/second"))
	h.pass()
	a, _ := findRoute(h.loop.input.Routes, h.routeRef("a"))
	first := h.loop.input.Routes[a]
	read := func(route string, want ...string) {
		t.Helper()
		h.loop.inbox.Add(func(p *pending) { p.routes.Insert(h.routeRef(route)) })
		built, err := h.loop.pass(t.Context())
		h.must(err)
		var served []string
		for _, path := range []string{"/first", "/second", "/changed", "/new"} {
			if bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte(path)) {
				served = append(served, path)
			}
		}
		if !built || !slices.Equal(served, want) {
			t.Errorf("after %s: %v is served, want %v", route, served, want)
		}
	}
	h.apply(routeTo("b", "/changed"))
	read("b", "/first", "/changed")
	h.must(h.api.Delete(t.Context(), h.storedRoute("b")))
	h.apply(routeTo("b", "/second")) // generation 1
	read("b", "/first", "/second")
	h.apply(routeTo("b", "/changed"))
	h.apply(routeTo("c", "/new"))
	read("b", "/first", "/changed")
	read("c", "/first", "/changed", "/new")

	h.await("b's status", func() bool { return isAccepted(h.adaptedRoute("b")) })
	rejected := h.reject("b") // by another replica's edge
	read("b", "/first", "/new")

	h.must(h.api.Delete(t.Context(), rejected)) // the next b is another object, without a rejection
	h.apply(routeTo("b", "/second"))
	read("b", "/first", "/second", "/new")
	h.await("b's status", func() bool { return isAccepted(h.adaptedRoute("b")) })
	h.reject("b") // which was meant for the other one
	read("b", "/first", "/second", "/new")

	h.must(h.api.Delete(t.Context(), rejected))
	h.awaitCaches(rejected)
	read("b", "/first", "/new")
	if now, _ := findRoute(h.loop.input.Routes, h.routeRef("a")); now != a || h.loop.input.Routes[now] != first {
		t.Error("a is another object")
	}
	if state := h.loop.rollout.Describe(); strings.Contains(state, h.routeRef("b").String()) {
		t.Errorf("b is gone, and still in\n%s", state)
	}
}

// A route is deleted and recreated, at generation 1 again: an edge's NACK is about the one that it had.
func TestRecreatedRouteIsNotRejected(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a"))
	h.pass()
	answer := func(taken bool) {
		table := h.edges.route(h.name, h.table())
		if taken {
			h.loop.Acked(table.TypeURL, map[string]string{table.Name: table.Version})
		} else {
			h.loop.Nacked(table.TypeURL, table.Name, table.Version, "no")
		}
	}
	recreate := func(path string) {
		t.Helper()
		h.must(client.IgnoreNotFound(h.api.Delete(t.Context(), &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: h.name, Name: "b"}})))
		h.apply(routeTo("b", path))
		h.loop.inbox.Add(func(p *pending) { p.routes.Insert(h.routeRef("b")) })
	}
	pass := func(want string) {
		t.Helper()
		for range 2 { // what an edge says is in the next Build
			_, err := h.loop.pass(t.Context())
			h.must(err)
		}
		if b, gateway := h.conditionOf(condition.HTTPRoute, "b", "Accepted"), h.conditionOf(condition.Gateway, "shared", "Programmed"); b != want || strings.Contains(gateway, "Refused") {
			t.Errorf("b is %s, want %s; the Gateway is %s", b, want, gateway)
		}
	}
	answer(true)
	recreate("/bad")
	pass("True Accepted")
	answer(false)
	recreate("/good") // before the hub has looked at the answer
	pass("True Accepted")
	answer(true)
	recreate("/worse")
	pass("True Accepted")
	answer(false)
	pass("False RefusedByEdge")
}

// A route that leaves our Gateways loses our status.
func TestRouteLeaves(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a"))
	h.pass()
	h.await("we accept it", func() bool { return isAccepted(h.adaptedRoute("a")) })
	route := h.storedRoute("a")
	route.Spec.ParentRefs[0].Name = "somebody-elses"
	h.must(h.api.Update(t.Context(), route))
	route.SetGroupVersionKind(schema.GroupVersion(gatewayv1.GroupVersion).WithKind("HTTPRoute"))
	h.awaitCaches(route)
	h.pass()
	h.await("our parent is gone", func() bool { return len(h.storedRoute("a").Status.Parents) == 0 })
}

// The running loop: the first Model has everything there is; an event is a
// push, and our own status writes are none.
func TestLoopFollowsEvents(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a"))
	h.start()
	before := h.edges.pushed()
	done := make(chan error)
	go func() { done <- h.loop.Start(h.Context()) }()
	<-h.loop.Built()
	if n := h.edges.pushed() - before; n != 1 || h.edges.route(h.name, h.table()).Name == "" {
		t.Errorf("the first build was %d pushes, and the route is %q", n, h.edges.route(h.name, h.table()).Name)
	}
	h.await("a's status", func() bool { return isAccepted(h.adaptedRoute("a")) })

	began := time.Now()
	h.apply(routeTo("a", "/changed"))
	h.await("the change is pushed", func() bool {
		return bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte("/changed"))
	})
	t.Logf("route write -> push: %s", time.Since(began))
	h.await("its status", func() bool { return isAccepted(h.adaptedRoute("a")) })
	if n := h.edges.pushed() - before; n != 2 {
		t.Errorf("%d pushes of one change", n-1)
	}

	// Somebody takes our status away: it comes back.
	route := h.storedRoute("a")
	route.Status.Parents = []gatewayv1.RouteParentStatus{}
	h.must(h.api.Status().Update(t.Context(), route))
	h.await("the status again", func() bool { return isAccepted(h.adaptedRoute("a")) })

	// A route goes; then the Gateway: nothing of ours stays on the routes, the youngest too.
	h.apply(routeTo("b", "/b"))
	h.apply(routeTo("c", "/leaves"))
	h.await("b's and c's status", func() bool { return isAccepted(h.adaptedRoute("b")) && isAccepted(h.adaptedRoute("c")) })
	h.must(h.api.Delete(t.Context(), h.storedRoute("c")))
	h.await("c is gone", func() bool { return !bytes.Contains(h.edges.route(h.name, h.table()).Body.Value, []byte("/leaves")) })
	h.must(h.api.Delete(t.Context(), &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: h.name, Name: "shared"}}))
	h.await("our statuses are gone", func() bool { return !h.adaptedRoute("a").HasOurStatus() && !h.adaptedRoute("b").HasOurStatus() })
}

// rechecks records the objects to check again.
type rechecks struct {
	noReporter
	rechecked []string
}

func (l *rechecks) Recheck(kind condition.Kind, name fleet.ObjectName) {
	l.rechecked = append(l.rechecked, string(kind)+" "+name.String())
}

// A new object may replace one of the same name and have the same report: it is checked again.
func TestNewObjectsAreRechecked(t *testing.T) {
	recorded := &rechecks{}
	r := New(Options{Reporter: recorded})
	for i, f := range r.kinds {
		r.handler(i, f).OnAdd(f.object, false)
	}
	if got := fmt.Sprint(recorded.rechecked); got != "[GatewayClass / Gateway / BackendPolicy / HTTPRoute /]" {
		t.Error(got)
	}
}

// An update that Build does not read makes no build.
func TestAffectsBuild(t *testing.T) {
	route := acceptedRoute("a", 1, condition.RouteAccepted())
	status := route.DeepCopy()
	status.Status.Parents[0].Conditions[0].Message = "another message"
	refused := acceptedRoute("a", 1, condition.RouteRefusedByEdge("no"))
	newer := route.DeepCopy()
	newer.Generation = 2
	for _, story := range []struct {
		name string
		to   *gatewayv1.HTTPRoute
		want bool
	}{{"its status", status, false}, {"another replica saw a NACK", &refused, true}, {"its spec", newer, true}} {
		if got := routeChanged(gateway.RouteKinds()[0])(&route, story.to); got != story.want {
			t.Errorf("%s: affects Build: %v", story.name, got)
		}
	}
	pool := &v1alpha1.EdgePool{}
	counted := pool.DeepCopy()
	counted.Status.Edges = 3
	given := pool.DeepCopy()
	given.Status.Allocations = []v1alpha1.AddressAllocation{{Address: "198.18.1.1"}}
	if poolChanged(pool, counted) || !poolChanged(pool, given) {
		t.Error("a pool's edges affect Build, or its allocations do not")
	}
}
