package envoy

import (
	"net/netip"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// dropCategory names the requests answered 503 in Envoy's statistics and load reports: their backend has no ready
// endpoint.
const dropCategory = "no-ready-endpoint"

// LoadAssignment returns the Envoy resource of one load assignment. An error means that Envoy would refuse it.
func LoadAssignment(a lbsync.LoadAssignment) (Resource, error) {
	return (&LoadAssignments{}).Encode(a)
}

// LoadAssignments encodes the load assignments of one assignment for several regions. They differ in weights, and most
// localities are otherwise the same in all of them: so much is validated and encoded once.
type LoadAssignments struct {
	localities map[string][]encodedLocality // by sub-zone
}

// encodedLocality is a locality without its weight and priority.
type encodedLocality struct {
	place     fleet.Place
	unchecked bool
	endpoints []netip.AddrPort
	weight    uint32 // of each endpoint; 0: none
	body      []byte
}

// endpointsField is the number of the field with the localities.
var endpointsField = (*endpointv3.ClusterLoadAssignment)(nil).ProtoReflect().Descriptor().Fields().ByName("endpoints").Number()

// deterministic gives equal messages equal bytes.
var deterministic = proto.MarshalOptions{Deterministic: true}

// Encode returns the Envoy resource of one load assignment. An error means that Envoy would refuse it. A message's fields
// may be encoded one by one, those of a repeated field too, and put together (protobuf, encoding, "Last One Wins").
func (e *LoadAssignments) Encode(a lbsync.LoadAssignment) (Resource, error) {
	frame := &endpointv3.ClusterLoadAssignment{ClusterName: a.Key}
	byWeight := healthByWeight(a)
	if a.Drop > 0 || byWeight {
		frame.Policy = &endpointv3.ClusterLoadAssignment_Policy{WeightedPriorityHealth: byWeight}
	}
	if a.Drop > 0 {
		frame.Policy.DropOverloads = []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{
			Category:       dropCategory,
			DropPercentage: &typev3.FractionalPercent{Numerator: a.Drop, Denominator: typev3.FractionalPercent_MILLION}}}
	}
	r, err := pack(a.Key, frame)
	if err != nil {
		return r, err
	}
	parts := [][]byte{r.Body.GetValue()}
	for _, l := range a.Localities {
		own, common, err := e.locality(l, byWeight)
		if err != nil {
			return r, err
		}
		length := protowire.AppendVarint(protowire.AppendTag(nil, endpointsField, protowire.BytesType), uint64(len(own)+len(common)))
		parts = append(parts, length, own, common)
	}
	r.Body.Value = slices.Concat(parts...)
	r.Version = traffic.Version(hash(r.Body.GetValue()), a.Shares)
	return r, nil
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

// locality encodes a locality in two parts, the first of which is this load assignment's own.
func (e *LoadAssignments) locality(l lbsync.Locality, byWeight bool) (own, common []byte, err error) {
	part := &endpointv3.LocalityLbEndpoints{LoadBalancingWeight: number(l.Weight)}
	if l.Later {
		part.Priority = 1
	}
	if own, err = encode(part); err != nil {
		return nil, nil, err
	}
	member := l.SubZone()
	want := encodedLocality{place: l.Place, unchecked: l.Unchecked, endpoints: l.Endpoints}
	if byWeight && !l.Later {
		want.weight = max(l.Weight/uint32(len(l.Endpoints)), 1)
	}
	for _, have := range e.localities[member] {
		if have.place == want.place && have.unchecked == want.unchecked && have.weight == want.weight &&
			slices.Equal(have.endpoints, want.endpoints) {
			return own, have.body, nil
		}
	}
	if want.body, err = encode(want.message(member)); err != nil {
		return nil, nil, err
	}
	if e.localities == nil {
		e.localities = map[string][]encodedLocality{}
	}
	e.localities[member] = append(e.localities[member], want)
	return own, want.body, nil
}

// encode encodes a part of a locality that Envoy accepts.
func encode(part *endpointv3.LocalityLbEndpoints) ([]byte, error) {
	if err := part.ValidateAll(); err != nil {
		return nil, err
	}
	return deterministic.Marshal(part)
}

func (e *encodedLocality) message(member string) *endpointv3.LocalityLbEndpoints {
	out := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Region: e.place.Region, Zone: e.place.Zone, SubZone: member}}
	var weight *wrapperspb.UInt32Value
	if e.weight > 0 {
		weight = number(e.weight)
	}
	var check *endpointv3.Endpoint_HealthCheckConfig
	if e.unchecked {
		check = &endpointv3.Endpoint_HealthCheckConfig{DisableActiveHealthCheck: true}
	}
	// The hostname of an endpoint names the member in access logs. Envoy reads it for nothing else here: a health check has
	// a Host of its own. Metadata of the endpoint would cost an edge ten times the memory, and the locality's would only be
	// read by CEL, which cost more than all other fields of the log. (docs/performance.md)
	for _, address := range e.endpoints {
		out.LbEndpoints = append(out.LbEndpoints, &endpointv3.LbEndpoint{LoadBalancingWeight: weight, HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socket(address.Addr(), uint32(address.Port())), Hostname: member, HealthCheckConfig: check}}})
	}
	return out
}
