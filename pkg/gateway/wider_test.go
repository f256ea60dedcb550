package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// A Build looks at the rules of a wide hostname once, however many narrower hostnames there are: or one developer's rules
// would cost the hub's time for each hostname of others.
func TestManyHostsUnderManyRules(t *testing.T) {
	const hosts, wide = 1000, 60
	var both, apart time.Duration
	for range 5 { // a busy machine may slow down one of them
		both = buildTime(append(pathsOf(bigInput(hosts), 1, ""), pathsOf(bigInput(wide), 128, "*.example.com")...))
		apart = buildTime(pathsOf(bigInput(hosts), 1, "")) + buildTime(pathsOf(bigInput(wide), 128, "*.example.com"))
		if both <= 3*apart { // six times, if each hostname looks at the rules
			return
		}
	}
	t.Errorf("%d hostnames and %d x 128 rules of a wider one take %s together, and %s apart", hosts, wide, both, apart)
}

// pathsOf gives each route of an Input a number of paths, and a hostname if one is given.
func pathsOf(in Input, paths int, host gatewayv1.Hostname) (routes []*Route) {
	for i := range in.Routes {
		o := objectOf(in.Routes[i])
		if host != "" {
			o.Namespace, o.Spec.Hostnames = "wide", []gatewayv1.Hostname{host}
		}
		for k := range paths {
			path := &gatewayv1.HTTPPathMatch{Value: new(fmt.Sprintf("/%d/%d", i, k))}
			o.Spec.Rules[0].Matches = append(o.Spec.Rules[0].Matches, gatewayv1.HTTPRouteMatch{Path: path})
		}
		routes = append(routes, FromHTTPRoute(o))
	}
	return routes
}

// buildTime is the shortest of three Builds.
func buildTime(routes []*Route) time.Duration {
	in, shortest := bigInput(0), time.Hour
	in.Routes = routes
	for range 3 {
		begin := time.Now()
		Build(in)
		shortest = min(shortest, time.Since(begin))
	}
	return shortest
}

// sharedWildcard is a Gateway under whose hostname "*.example.com" several namespaces have routes, and the statuses that its
// routes have by now.
type sharedWildcard struct {
	in      Input
	earlier Earlier
	result  Result
	created int
	now     metav1.Time
}

func newSharedWildcard(namespace, gateway int32) *sharedWildcard {
	w := &sharedWildcard{in: bigInput(0), earlier: Earlier{}, now: metav1.NewTime(epoch)}
	w.in.Parameters = []v1alpha1.GatewayParameters{{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "tight"},
		Spec: v1alpha1.GatewayParametersSpec{Budgets: v1alpha1.Budgets{Namespace: v1alpha1.Budget{Routes: &namespace}, Gateway: v1alpha1.Budget{Routes: &gateway}}}}}
	w.in.GatewayClasses[0].Spec.ParametersRef = &gatewayv1.ParametersReference{Group: "crossway.dev", Kind: "GatewayParameters", Name: "tight", Namespace: new(gatewayv1.Namespace("infra"))}
	w.see(nil)
	return w
}

// set writes a route with a number of paths, or removes it where that is 0, and waits until all statuses are written.
func (w *sharedWildcard) set(namespace, host string, paths int) {
	routes := slices.Clone(w.in.Routes)
	name := fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: namespace, Name: "of-" + strings.ReplaceAll(host, "*", "all")}}
	at, found := slices.BinarySearchFunc(routes, name, func(r *Route, ref fleet.RouteRef) int { return r.Ref.Compare(ref) })
	with := func(o *gatewayv1.HTTPRoute) {
		o.Spec.Rules[0].Matches = nil
		for i := range paths {
			path := &gatewayv1.HTTPPathMatch{Value: new(fmt.Sprintf("/%s/%d", namespace, i))}
			o.Spec.Rules[0].Matches = append(o.Spec.Rules[0].Matches, gatewayv1.HTTPRouteMatch{Path: path})
		}
	}
	switch {
	case paths == 0 && found:
		routes = slices.Delete(routes, at, at+1)
	case paths == 0:
	case found:
		routes[at] = revised(routes[at], with)
	default:
		w.created++
		o := objectOf(bigInput(1).Routes[0])
		o.Namespace, o.Name, o.UID = namespace, name.Name.Name, types.UID(fmt.Sprint(w.created))
		o.CreationTimestamp, o.Spec.Hostnames = w.now, []gatewayv1.Hostname{gatewayv1.Hostname(host)}
		with(o)
		routes = slices.Insert(routes, at, FromHTTPRoute(o))
	}
	w.see(routes)
	for range 4 { // each Build may change statuses, and these what the next Build does
		w.now.Time = w.now.Add(time.Second)
		w.see(w.withStatuses())
	}
}

func (w *sharedWildcard) see(routes []*Route) {
	w.earlier.Note(w.result, w.in.Routes, routes)
	w.in.Routes = routes
	w.result = w.earlier.Build(&w.in)
}

// withStatuses are the routes with the statuses that the last Build decided.
func (w *sharedWildcard) withStatuses() []*Route {
	return withStatuses(w.in.Routes, w.result, w.now.Time)
}

// withStatuses are routes with the statuses that a Build decided.
func withStatuses(routes []*Route, result Result, now time.Time) []*Route {
	routes = slices.Clone(routes)
	for _, report := range Report(result, nil) {
		at := slices.IndexFunc(routes, func(r *Route) bool { return r.Ref == report.Ref.Object() })
		if at < 0 {
			continue
		}
		o := objectOf(routes[at]).DeepCopy()
		var stored []metav1.Condition
		if len(o.Status.Parents) > 0 {
			stored = o.Status.Parents[0].Conditions
		}
		o.Status.Parents = nil
		for _, p := range report.Parents {
			o.Status.Parents = append(o.Status.Parents, gatewayv1.RouteParentStatus{ParentRef: p.ParentRef, ControllerName: v1alpha1.GatewayController,
				Conditions: condition.Stamped(stored, p.Conditions, report.Ref.Generation, now)})
		}
		routes[at] = FromHTTPRoute(o)
	}
	return routes
}

type routeAtHost struct {
	host  string
	route fleet.RouteRef
}

// widerRoutes are the routes that serve what narrower hostnames leave, and the rules of these hostnames by namespace.
func (w *sharedWildcard) widerRoutes() (served map[routeAtHost]bool, rules map[string]map[string]int) {
	served, rules = map[routeAtHost]bool{}, map[string]map[string]int{}
	for _, h := range w.result.Model.Listeners[0].Chains[0].Hosts {
		rules[h.Hostname] = map[string]int{}
		for _, r := range h.Rules {
			rules[h.Hostname][r.Origin.Route.Name.Namespace]++
		}
		for _, wider := range h.Wider {
			for _, r := range wider.Rules {
				served[routeAtHost{h.Hostname, r.Origin.Route}] = true
			}
		}
	}
	return served, rules
}

// A hub that restarts goes on with what had room, though an older route was left out for long.
func TestRestartKeepsWiderRules(t *testing.T) {
	w := newSharedWildcard(40, 24) // 6 rules of wildcards have room, 3 of one namespace
	w.set("x", "x.example.com", 1)
	w.set("a", "*.example.com", 5)
	w.set("b", "*.example.com", 3)
	w.set("c", "*.example.com", 3)
	w.set("a", "*.example.com", 3)
	was, _ := w.widerRoutes()
	if len(was) != 2 || len(w.result.WiderAdmissions.admitted) != 2 {
		t.Fatalf("%v: a is not left out", was)
	}
	w.in.Memo, w.in.WiderAdmissions, w.earlier, w.result = nil, nil, Earlier{}, Result{}
	w.see(w.in.Routes)
	if is, _ := w.widerRoutes(); !maps.Equal(was, is) {
		t.Errorf("after a restart %v are served, and not %v", is, was)
	}
}

// A route of a wildcard that becomes cheaper could be paid for by more namespaces. None of them does so with a room with which
// it pays for another one.
func TestCheaperWiderRoutesTakeNoRoom(t *testing.T) {
	w := newSharedWildcard(9, 16)
	w.set("a", "*.example.com", 1)
	w.set("b", "*.example.com", 3)
	w.set("d", "*.example.com", 2)
	w.set("b", "x.example.com", 3)
	w.set("a", "x.example.com", 1)
	w.set("b", "y.example.com", 1)
	was, _ := w.widerRoutes()
	w.set("d", "*.example.com", 1)
	is, _ := w.widerRoutes()
	for at := range was {
		if !is[at] {
			t.Errorf("%s does not serve %s any more: %v", at.route, at.host, is)
		}
	}
}

// Namespaces that fill the time of a hostname together take nothing from it that a wildcard serves there.
func TestFullHostnamesKeepWiderRules(t *testing.T) {
	w := newSharedWildcard(8000, 60000)
	budgets := &w.in.Parameters[0].Spec.Budgets
	budgets.Namespace.MatchMicroseconds, budgets.Gateway.MatchMicroseconds = new(int32(6)), new(int32(8))
	w.set("infra", "*.example.com", 1)
	w.set("victim", "www.example.com", 1)
	w.set("x", "www.example.com", 39)
	accepted := 0
	for paths := range 20 {
		w.set("y", "www.example.com", paths)
		served, rules := w.widerRoutes()
		if len(served) != 1 {
			t.Fatalf("with %d rules of y: %v", paths, rules)
		}
		accepted = rules["www.example.com"]["y"]
	}
	if accepted < 5 || accepted > 18 {
		t.Errorf("%d rules of y are accepted: the hostname is not full", accepted)
	}
}

// What a route of a wildcard serves of a narrower hostname, it goes on to serve whatever a third namespace does.
func TestOthersTakeNoRoomOfWiderRules(tb *testing.T) {
	compared, full := 0, 0
	rapid.Check(tb, func(t *rapid.T) {
		w := newSharedWildcard(rapid.Int32Range(5, 14).Draw(t, "namespace"), rapid.Int32Range(16, 60).Draw(t, "gateway"))
		namespaces := []string{"a", "b", "c", "d"}
		for range rapid.IntRange(3, 14).Draw(t, "changes") {
			was, rules := w.widerRoutes()
			who := rapid.SampledFrom(namespaces).Draw(t, "who")
			host := rapid.SampledFrom([]string{"*.example.com", "*.example.com", "x.example.com", "y.example.com", "z.example.com"}).Draw(t, "host")
			paths := rapid.IntRange(0, 5).Draw(t, "paths")
			history := describeModel(w.result.Model)
			w.set(who, host, paths)
			is, now := w.widerRoutes()
			if w.result.WiderAdmissions != nil {
				full++
			}
			pending := false // an edit of another namespace that has room now
			for _, namespace := range namespaces {
				of := func(rules map[string]map[string]int) (count int) {
					for _, byNamespace := range rules {
						count += byNamespace[namespace]
					}
					return count
				}
				pending = pending || namespace != who && of(rules) != of(now)
			}
			for g := range was {
				if pending || g.route.Name.Namespace == who || rules[g.host][who] > 0 {
					continue
				}
				compared++
				if !is[g] {
					t.Fatalf("%s has %d paths for %s now, and %s does not serve the rest of %s any more:\n%s\n%s", who, paths, host, g.route, g.host, history, describeModel(w.result.Model))
				}
			}
		}
	})
	if !testing.Short() && (compared < 100 || full < 100) {
		tb.Errorf("%d comparisons, and %d Builds without room for all: this tests nothing", compared, full)
	}
}
