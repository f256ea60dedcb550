package envoy

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// dropCategory names the requests answered 503 in Envoy's statistics and load reports: their backend has no ready
// endpoint.
const dropCategory = "no-ready-endpoint"

// LoadAssignment returns the Envoy resource of one load assignment. An error means that Envoy would refuse it.
func LoadAssignment(a lbsync.LoadAssignment) (Resource, error) {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: a.Key}
	byWeight := healthByWeight(a)
	for _, l := range a.Localities {
		out.Endpoints = append(out.Endpoints, locality(l, byWeight))
	}
	if a.Drop > 0 || byWeight {
		out.Policy = &endpointv3.ClusterLoadAssignment_Policy{WeightedPriorityHealth: byWeight}
	}
	if a.Drop > 0 {
		out.Policy.DropOverloads = []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{
			Category:       dropCategory,
			DropPercentage: &typev3.FractionalPercent{Numerator: a.Drop, Denominator: typev3.FractionalPercent_MILLION}}}
	}
	r, err := pack(a.Key, out)
	r.Version = traffic.Version(r.Version, a.Shares)
	return r, err
}

// healthByWeight says whether endpoints carry their part of their locality's weight. Envoy sends requests to later
// localities as the others become unhealthy. Without weights each endpoint would count alike, and the many endpoints of a
// dead member that has 1 % left to be probed would send everybody else's requests away.
func healthByWeight(a lbsync.LoadAssignment) bool {
	later := slices.ContainsFunc(a.Localities, func(l lbsync.Locality) bool { return l.Later })
	shares := 0
	for _, l := range a.Localities {
		if !l.Later {
			shares++
		}
	}
	return later && shares > 1
}

func locality(l lbsync.Locality, byWeight bool) *endpointv3.LocalityLbEndpoints {
	out := &endpointv3.LocalityLbEndpoints{
		Locality:            &corev3.Locality{Region: l.Place.Region, Zone: l.Place.Zone, SubZone: l.SubZone()},
		LoadBalancingWeight: number(l.Weight),
	}
	if l.Later {
		out.Priority = 1
	}
	var weight *wrapperspb.UInt32Value
	if byWeight && !l.Later {
		weight = number(max(l.Weight/uint32(len(l.Endpoints)), 1))
	}
	var check *endpointv3.Endpoint_HealthCheckConfig
	if l.Unchecked {
		check = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	// The hostname of an endpoint names the member in access logs. Envoy reads it for nothing else here: a health check has
	// a Host of its own. Metadata of the endpoint would cost an edge ten times the memory, and the locality's would only be
	// read by CEL, which cost more than all other fields of the log. (docs/performance.md)
	member := l.SubZone()
	for _, e := range l.Endpoints {
		out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{LoadBalancingWeight: weight, HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socket(e.Addr(), uint32(e.Port())), Hostname: member, HealthCheckConfig: check}}})
	}
	return out
}
