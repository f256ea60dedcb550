package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
)

// otherKind is a kind of route beside HTTPRoute, adapted as HTTPRoutes are.
const otherKind fleet.Kind = "OtherRoute"

// routesOf is a cache of routes: HTTPRoutes, and OtherRoutes under the type of GRPCRoutes.
type routesOf struct {
	cache.Cache
	generation map[fleet.RouteRef]int64
	reads      []string
}

func (c *routesOf) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	c.reads = append(c.reads, fmt.Sprintf("list %T", list))
	for ref, generation := range c.generation {
		meta := metav1.ObjectMeta{Namespace: ref.Name.Namespace, Name: ref.Name.Name, Generation: generation}
		switch l := list.(type) {
		case *gatewayv1.HTTPRouteList:
			if ref.Kind == condition.HTTPRoute {
				l.Items = append(l.Items, gatewayv1.HTTPRoute{ObjectMeta: meta})
			}
		case *gatewayv1.GRPCRouteList:
			if ref.Kind == otherKind {
				l.Items = append(l.Items, gatewayv1.GRPCRoute{ObjectMeta: meta})
			}
		}
	}
	return nil
}

func (c *routesOf) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	c.reads = append(c.reads, fmt.Sprintf("get %T %s", o, key))
	kind := condition.HTTPRoute
	if _, other := o.(*gatewayv1.GRPCRoute); other {
		kind = otherKind
	}
	o.SetNamespace(key.Namespace)
	o.SetName(key.Name)
	o.SetGeneration(c.generation[fleet.RouteRef{Kind: kind, Name: fleet.ObjectName(key)}])
	return nil
}

// Two kinds of routes with equal names are read apart: one by one, and where
// one kind is listed again what is pending of the other is still read.
func TestKindsAreReadApart(t *testing.T) {
	http := fleet.RouteRef{Kind: condition.HTTPRoute, Name: shop("a")}
	other := fleet.RouteRef{Kind: otherKind, Name: shop("a")}
	objects := &routesOf{generation: map[fleet.RouteRef]int64{http: 1, other: 1}}
	r := New(Options{Cache: objects})
	r.watchKinds([]watchedKind{watchedRoutes(gateway.RouteKinds()[0]), watchedRoutes(gateway.NewRouteKind(otherKind, &gatewayv1.GRPCRouteList{}, adaptOther))})
	r.first = false
	gather := func(change func(*pending), wantReads, want string) {
		t.Helper()
		objects.reads = nil
		r.inbox.Add(change)
		if _, err := r.gather(t.Context(), r.inbox.Drain()); err != nil {
			t.Fatal(err)
		}
		var routes []string
		for _, route := range r.input.Routes {
			routes = append(routes, fmt.Sprintf("%s@%d", route.Ref, route.Generation))
		}
		slices.Sort(objects.reads)
		if got := strings.Join(objects.reads, ", "); got != wantReads {
			t.Errorf("reads: %s, want %s", got, wantReads)
		}
		if got := strings.Join(routes, ", "); got != want {
			t.Errorf("routes: %s, want %s", got, want)
		}
	}
	gather(func(*pending) {}, "list *v1.GRPCRouteList, list *v1.HTTPRouteList", "HTTPRoute shop/a@1, OtherRoute shop/a@1")
	objects.generation[http], objects.generation[other] = 2, 2
	gather(func(p *pending) { p.routes.Insert(other) }, "get *v1.GRPCRoute shop/a", "HTTPRoute shop/a@1, OtherRoute shop/a@2")
	objects.generation[http], objects.generation[other] = 3, 3
	gather(func(p *pending) { p.stale[0] = true; p.routes.Insert(http, other) },
		"get *v1.GRPCRoute shop/a, list *v1.HTTPRouteList", "HTTPRoute shop/a@3, OtherRoute shop/a@3")
}

// adaptOther reads no spec: this test builds nothing.
func adaptOther(o *gatewayv1.GRPCRoute) *gateway.Route {
	route := *gateway.FromHTTPRoute(&gatewayv1.HTTPRoute{ObjectMeta: o.ObjectMeta})
	route.Ref.Kind = otherKind
	return &route
}
