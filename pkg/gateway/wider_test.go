package gateway

import (
	"fmt"
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
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
