package reconciler

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/envoy"
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

// tooBig is the path of a route that refusing edges refuse.
const tooBig = "/too(big|for)an[e]dge"

// refusing has some edges refuse what contains tooBig.
func (h *hub) refusing(streams ...uint64) {
	h.edges.mu.Lock()
	defer h.edges.mu.Unlock()
	h.edges.refuses = func(stream uint64, r envoy.Resource) string {
		if slices.Contains(streams, stream) && bytes.Contains(r.Body.GetValue(), []byte(tooBig)) {
			return "RE2 program size too big: " + tooBig
		}
		return ""
	}
}

// expectPaths checks which of some paths an edge should have.
func (h *hub) expectPaths(why string, stream uint64, want ...string) {
	h.Helper()
	var got []string
	for _, path := range []string{"/a[0-9]+", "/b[0-9]+", tooBig, "/changed[0-9]+", "/repaired[0-9]+"} {
		if strings.Contains(h.edges.hasRoutes(h.name, stream), path) {
			got = append(got, path)
		}
	}
	if !slices.Equal(got, want) {
		h.Errorf("%s: edge %d has %v, want %v", why, stream, got, want)
	}
}

func (h *hub) expectConditions(why string, want map[string]string) {
	h.Helper()
	for which, want := range want {
		name, conditionType, _ := strings.Cut(which, " ")
		if got := h.conditionOf(condition.HTTPRoute, name, conditionType); got != want {
			h.Errorf("%s: %s is %q, want %q", why, which, got, want)
		}
	}
}

// passes are as many passes as the loop needs to come to rest.
func (h *hub) passes() {
	h.Helper()
	for range 12 {
		h.pass()
	}
	if h.loop.rollout.HasWork() {
		h.Error("the loop does not come to rest")
	}
	h.must(h.records.write(h.Context(), h.records.inbox.Drain()))
}

// All edges of the only pool refuse a route that the hub accepts. It falls back to
// its last generation, also after a restart of the hub, until it changes; its
// neighbour's next change arrives.
func TestRefusedRouteFallsBack(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.apply(routeTo("a", "/a[0-9]+"))
	h.apply(routeTo("b", "/b[0-9]+"))
	h.passes()
	h.expectPaths("before", 1, "/a[0-9]+", "/b[0-9]+")
	h.refusing(1)
	h.apply(routeTo("b", tooBig))
	h.passes()
	h.expectPaths("b is refused", 1, "/a[0-9]+", "/b[0-9]+")
	fellBack := map[string]string{"a Accepted": "True Accepted", "b Accepted": "True Accepted", "a PartiallyInvalid": "", "b PartiallyInvalid": "True UnsupportedValue"}
	h.expectConditions("b is refused", fellBack)
	h.await("b's status is about its first generation", func() bool {
		c := acceptedCondition(h.storedRoute("b"))
		return c != nil && c.ObservedGeneration == 1 && c.Status == metav1.ConditionTrue
	})

	h.apply(routeTo("a", "/changed[0-9]+"))
	h.passes()
	h.expectPaths("a changes", 1, "/b[0-9]+", "/changed[0-9]+")
	var stored appsv1.ControllerRevisionList
	h.must(h.api.List(t.Context(), &stored, client.InNamespace(h.name)))
	if len(stored.Items) != 1 || stored.Items[0].Revision != 1 {
		t.Fatalf("records %+v", stored.Items)
	}

	h.start()
	h.pass()
	h.expectConditions("after a restart, at once", fellBack)
	h.passes()
	h.expectPaths("after a restart", 1, "/b[0-9]+", "/changed[0-9]+")
	h.expectConditions("after a restart", fellBack)

	h.apply(routeTo("b", "/repaired[0-9]+"))
	h.passes()
	h.expectPaths("b is repaired", 1, "/changed[0-9]+", "/repaired[0-9]+")
	h.expectConditions("b is repaired", map[string]string{"b Accepted": "True Accepted", "b PartiallyInvalid": ""})
	h.must(h.api.List(t.Context(), &stored, client.InNamespace(h.name)))
	if len(stored.Items) != 0 {
		t.Errorf("records of a route that nobody refuses: %+v", stored.Items)
	}
}

// acceptedCondition is the first Accepted condition of a route.
func acceptedCondition(route *gatewayv1.HTTPRoute) *metav1.Condition {
	if len(route.Status.Parents) == 0 {
		return nil
	}
	return meta.FindStatusCondition(route.Status.Parents[0].Conditions, "Accepted")
}

// One of two edges refuses a route: it is held against that edge. The route says
// nothing; the EdgePool does.
func TestRefusingEdgeIsOutvoted(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.edges.connected = 2
	h.apply(routeTo("a", "/a[0-9]+"))
	h.apply(routeTo("b", "/b[0-9]+"))
	h.passes()
	h.refusing(2)
	h.apply(routeTo("b", tooBig))
	h.passes()
	h.expectPaths("the strict edge", 2, "/a[0-9]+", "/b[0-9]+")
	h.expectPaths("the other edge", 1, "/a[0-9]+", tooBig)
	h.expectConditions("b", map[string]string{"b Accepted": "True Accepted", "b PartiallyInvalid": "", "b RefusedInPools": ""})
	h.await("the EdgePool names the edge", func() bool {
		c := meta.FindStatusCondition(h.pool().Status.Conditions, condition.EdgePoolConfigurationType)
		return c != nil && c.Reason == "RejectedByEdge" && strings.Contains(c.Message, `edge "edge-2" refuses HTTPRoute `+h.name+"/b")
	})
	h.apply(routeTo("a", "/changed[0-9]+"))
	h.passes()
	h.expectPaths("the strict edge has a neighbour's change", 2, "/b[0-9]+", "/changed[0-9]+")
	h.refusing()
	h.apply(routeTo("b", "/repaired[0-9]+"))
	h.passes()
	h.await("the EdgePool says that all is well", func() bool {
		c := meta.FindStatusCondition(h.pool().Status.Conditions, condition.EdgePoolConfigurationType)
		return c != nil && c.Status == metav1.ConditionTrue
	})
}

// A route without an earlier generation is left out where it is refused, and is not
// accepted if that is everywhere.
func TestRefusedNewRoute(t *testing.T) {
	h := newHub(t)
	h.allocated()
	h.refusing(1)
	h.apply(routeTo("a", "/a[0-9]+"))
	h.apply(routeTo("b", tooBig))
	h.passes()
	h.expectPaths("b is new", 1, "/a[0-9]+")
	h.expectConditions("b is new", map[string]string{"a Accepted": "True Accepted", "b Accepted": "False RefusedByEdge"})
	h.start()
	h.passes()
	h.expectPaths("after a restart", 1, "/a[0-9]+")
	h.expectConditions("after a restart", map[string]string{"a Accepted": "True Accepted", "b Accepted": "False RefusedByEdge"})
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

	gone := h.storedRoute("b")
	h.must(h.api.Delete(t.Context(), gone))
	h.awaitCaches(gone)
	read("b", "/first", "/new")
	if now, _ := findRoute(h.loop.input.Routes, h.routeRef("a")); now != a || h.loop.input.Routes[now] != first {
		t.Error("a is another object")
	}
	if state := h.loop.rollout.Describe(); strings.Contains(state, h.routeRef("b").String()) {
		t.Errorf("b is gone, and still in\n%s", state)
	}
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
	r := New(Options{Reporter: recorded, PoolReporter: recorded})
	for i, f := range r.kinds {
		r.handler(i, f).OnAdd(f.object, false)
	}
	if got := fmt.Sprint(recorded.rechecked); got != "[GatewayClass / Gateway / BackendPolicy / EdgePool / HTTPRoute /]" {
		t.Error(got)
	}
}

// An update that Build does not read makes no build.
func TestAffectsBuild(t *testing.T) {
	route := acceptedRoute("a", 1, condition.RouteAccepted())
	status := route.DeepCopy()
	status.Status.Parents[0].Conditions[0].Message = "another message"
	refused := acceptedRoute("a", 1, condition.RouteRefusedByEdge(nil))
	newer := route.DeepCopy()
	newer.Generation = 2
	accepted := newer.DeepCopy()
	accepted.Status.Parents[0].Conditions[0].ObservedGeneration = 2
	for _, story := range []struct {
		name     string
		from, to *gatewayv1.HTTPRoute
		want     bool
	}{{"its status", &route, status, false}, {"its spec", &route, newer, true},
		{"that an edge refused it", &route, &refused, true}, {"that an edit is accepted", newer, accepted, true}} {
		if got := routeChanged(gateway.RouteKinds()[0])(story.from, story.to); got != story.want {
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
