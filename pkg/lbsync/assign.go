package lbsync

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"io"
	"math"
	"net/netip"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Part is one member's part of one backend, as its EndpointSlices say. The port is that of the backend, and the
// endpoints are admitted ones only.
type Part struct {
	Backend   fleet.Backend
	Cluster   fleet.ClusterName
	Place     fleet.Place
	Endpoints []fleet.Endpoint
}

// AssignInput is all that one load assignment of one region depends on.
type AssignInput struct {
	Assignment model.Assignment
	// Region that the load assignment is for.
	Region string
	// Parts returns the parts of one of the assignment's backends, also of its fallback.
	Parts func(b model.WeightedBackend) []Part
	// Shares of Region, by backend. A Service of the hub's own cluster needs none.
	Shares []traffic.BackendShares
	// Divisors are more than 1 where there would be too many copies of endpoints.
	Divisors Divisors
}

// Divisors say which part of the endpoints an assignment has: one of so many of its own backends, and of its fallback. 0
// is 1. Which ones they are depends on the assignment, so that several have different ones.
type Divisors struct{ Own, Fallback uint32 }

// sample is the part of a list of endpoints that an assignment has: at least the one with the least hash, if there must
// be one.
func (in AssignInput) sample(endpoints []fleet.Endpoint, divisor uint32, one bool) (kept []fleet.Endpoint) {
	if divisor <= 1 || len(endpoints) == 0 {
		return endpoints
	}
	seed := fnv.New64a()
	_, _ = io.WriteString(seed, in.Assignment.Key)
	first, least := 0, uint64(math.MaxUint64)
	for i, e := range endpoints {
		address := e.Address.As16()
		hash := splitMix(splitMix(seed.Sum64()^binary.BigEndian.Uint64(address[:8])) ^ binary.BigEndian.Uint64(address[8:]))
		if hash%uint64(divisor) == 0 {
			kept = append(kept, e)
		}
		if hash < least {
			first, least = i, hash
		}
	}
	if len(kept) == 0 && one {
		kept = endpoints[first : first+1]
	}
	return kept
}

// splitMix is the finalizer of SplitMix64: each bit of x changes half of the result's.
func splitMix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// LoadAssignment says which addresses answer for one assignment in one region, and in which proportion.
type LoadAssignment struct {
	Key string
	// Localities are sorted by backend and cluster, the fallback's after the others; no address is in two.
	Localities []Locality
	// Drop is the part of traffic.TotalParts that is answered 503: backends without any endpoint keep their weight.
	Drop uint32
	// Shares that it was made with, sorted by backend: its version carries them.
	Shares []traffic.BackendShares
	// Overlaps are the backends that have an address in common with an earlier one. Their part of the requests goes to
	// the same addresses, but load reports count it for the other backend.
	Overlaps []fleet.Backend
}

// Locality is one member's part of one backend.
type Locality struct {
	Backend fleet.Backend
	Cluster fleet.ClusterName
	Place   fleet.Place
	// Weight is at least 1; all weights sum to traffic.TotalParts and 1 for each refuge. A refuge is a member without a
	// share: Envoy moves requests of unhealthy localities only to localities that have a weight. Spares answer while all
	// others are dead. Where there are spares, their weight is 1 and all other weights are multiplied by
	// spareWeightFactor.
	Weight uint32
	// Later localities, of refuges and where there are refuges also of spares, get requests that were tried elsewhere
	// before, and more as the others become unhealthy.
	Later     bool
	Endpoints []netip.AddrPort // sorted
	Unchecked bool             // of a backend that the assignment's health check is not for
}

// SubZone names the locality to Envoy, and in its load reports: cluster/namespace/name of an import, or
// cluster/svc/namespace/name of a Service of the hub's own cluster.
func (l Locality) SubZone() string {
	if l.Backend.Kind == fleet.Service {
		return strings.Join([]string{string(l.Cluster), "svc", l.Backend.Name.Namespace, l.Backend.Name.Name}, "/")
	}
	return strings.Join([]string{string(l.Cluster), l.Backend.Name.Namespace, l.Backend.Name.Name}, "/")
}

// ParseSubZone reads what SubZone wrote; ok is false for anything else.
func ParseSubZone(s string) (cluster fleet.ClusterName, backend fleet.Backend, ok bool) {
	elements := strings.Split(s, "/")
	kind := fleet.Import
	if len(elements) == 4 && elements[1] == "svc" {
		kind, elements = fleet.Service, append(elements[:1:1], elements[2:]...)
	}
	if len(elements) != 3 || slices.Contains(elements, "") {
		return "", fleet.Backend{}, false
	}
	return fleet.ClusterName(elements[0]), fleet.Backend{Kind: kind, Name: fleet.ServiceName{Namespace: elements[1], Name: elements[2]}}, true
}

// UsableEndpoints returns the endpoints of one part that take new requests: the ready ones, and where none is ready those
// that terminate but still serve, as kube-proxy does (KEP-1669). The others are left out rather than marked as draining.
// Requests in flight finish in both cases, but Envoy counts draining hosts as a loss of the locality's health, and would
// move part of its share elsewhere during every rolling update.
func UsableEndpoints(endpoints []fleet.Endpoint) []fleet.Endpoint {
	for _, state := range []fleet.EndpointState{fleet.Ready, fleet.Draining} {
		usable := slices.DeleteFunc(slices.Clone(endpoints), func(e fleet.Endpoint) bool { return e.State != state })
		if len(usable) > 0 {
			slices.SortFunc(usable, fleet.Endpoint.Compare)
			return usable
		}
	}
	return nil
}

// CountReady counts the ready endpoints of a part: traffic.Capacity.Ready.
func CountReady(endpoints []fleet.Endpoint) int {
	n := 0
	for _, e := range endpoints {
		if e.State == fleet.Ready {
			n++
		}
	}
	return n
}

// Assign joins one assignment with the endpoints and the shares of one region. The weight of backends that are down goes
// to the assignment's other backends and its fallback. As long as none is down, the fallback's localities are spares.
func Assign(in AssignInput) LoadAssignment {
	own, fallback := in.resolve()
	out := LoadAssignment{Key: in.Assignment.Key, Shares: own.shares}
	if total := own.total(); total > 0 {
		out.Drop = uint32(own.dropped/total*traffic.TotalParts + 0.5)
	}
	upFactor, downFactor, fallbackFactor := traffic.FailoverFactors(own.up, own.down, fallback.up)
	own.scale(upFactor, downFactor)
	for _, l := range fallback.localities {
		l.fallback, l.spare = true, fallbackFactor == 0
		if l.spare && l.requests == 0 || own.down > 0 && l.down {
			continue
		}
		l.requests *= fallbackFactor
		own.localities = append(own.localities, l)
	}
	out.merge(own.localities)
	return out
}

// DemandFractions returns the part of an assignment's requests that is each backend's demand: by weight, and with the
// demand that it took over from backends that are down. A backend that is down keeps its own part as well, so that its
// demand is known when it returns.
func DemandFractions(in AssignInput) map[fleet.Backend]float64 {
	own, fallback := in.resolve()
	upFactor, _, fallbackFactor := traffic.FailoverFactors(own.up, own.down, fallback.up)
	out, total := map[fleet.Backend]float64{}, own.total()
	for _, b := range own.backends {
		factor := 1.0
		if b.state == up {
			factor = upFactor
		}
		out[b.Backend] += b.weight * factor / total
	}
	for _, b := range fallback.backends {
		if b.state == up && fallbackFactor > 0 {
			out[b.Backend] += b.weight * fallbackFactor / total
		}
	}
	return out
}

// weightedLocality is a locality and its part of the requests. A spare gets only the requests that nobody else answers.
type weightedLocality struct {
	Locality
	requests        float64 // in the unit of the backends' weights
	fallback, spare bool
	down            bool // of a backend that is down
}

// backendState of a backend in a region.
type backendState int

const (
	up    backendState = iota
	down               // it has endpoints, and all its members are dead
	empty              // it has no endpoint
)

// resolvedBackend is a backend of an assignment with its weight.
type resolvedBackend struct {
	fleet.Backend
	weight float64
	state  backendState
}

// resolvedList is a list of backends with their endpoints: the sums of weights by state, and the localities of all
// backends with endpoints, whose requests sum to these backends' weights.
type resolvedList struct {
	backends          []resolvedBackend
	localities        []weightedLocality
	up, down, dropped float64
	shares            []traffic.BackendShares
}

func (l *resolvedList) total() float64 { return l.up + l.down + l.dropped }

// resolve resolves an assignment's own backends and its fallback. An assignment without any endpoint of its own has no
// fallback: 503 is the right answer for a Service without endpoints.
func (in AssignInput) resolve() (own, fallback resolvedList) {
	own = in.resolveList(in.Assignment.Backends, in.Divisors.Own, true)
	if len(own.localities) > 0 {
		fallback = in.resolveList(in.Assignment.Fallback, in.Divisors.Fallback, false)
	}
	return own, fallback
}

// resolveList resolves a list, with one of so many endpoints of each member: of each at least one, or else of each backend.
func (in AssignInput) resolveList(list []model.WeightedBackend, divisor uint32, ofEach bool) (out resolvedList) {
	backends := slices.Clone(list)
	slices.SortStableFunc(backends, func(a, b model.WeightedBackend) int {
		return cmp.Or(a.Backend.Compare(b.Backend), cmp.Compare(a.Port, b.Port))
	})
	for _, b := range backends {
		if b.Weight == 0 {
			continue
		}
		localities, fractions := in.localitiesOf(b, divisor, ofEach)
		shares, found := in.sharesOf(b.Backend)
		if found && !slices.ContainsFunc(out.shares, func(s traffic.BackendShares) bool { return s.Backend == b.Backend }) {
			out.shares = append(out.shares, shares)
		}
		one := resolvedBackend{Backend: b.Backend, weight: float64(b.Weight)}
		switch alive := func(l Locality) bool { return !slices.Contains(shares.Dead, l.Cluster) }; {
		case len(localities) == 0:
			one.state = empty
			out.dropped += one.weight
		case !slices.ContainsFunc(localities, alive):
			one.state = down
			out.down += one.weight
		default:
			out.up += one.weight
		}
		out.backends = append(out.backends, one)
		for i, l := range localities {
			out.localities = append(out.localities, weightedLocality{Locality: l, requests: one.weight * fractions[i], down: one.state == down})
		}
	}
	return out
}

func (l *resolvedList) scale(upFactor, downFactor float64) {
	for i := range l.localities {
		if l.localities[i].down {
			l.localities[i].requests *= downFactor
		} else {
			l.localities[i].requests *= upFactor
		}
	}
}

func (in AssignInput) sharesOf(b fleet.Backend) (traffic.BackendShares, bool) {
	k := slices.IndexFunc(in.Shares, func(s traffic.BackendShares) bool { return s.Backend == b })
	if k < 0 {
		return traffic.BackendShares{}, false
	}
	return in.Shares[k], true
}

// localitiesOf lists the members that can answer for b, sorted by cluster, and the fraction of b's requests that each
// gets.
func (in AssignInput) localitiesOf(b model.WeightedBackend, divisor uint32, ofEach bool) ([]Locality, []float64) {
	parts := slices.Clone(in.Parts(b))
	slices.SortStableFunc(parts, func(a, b Part) int { return cmp.Compare(a.Cluster, b.Cluster) })
	ready := slices.ContainsFunc(parts, func(p Part) bool { return hasPort(b, p.Cluster) && CountReady(p.Endpoints) > 0 })
	var localities []Locality
	var all, inRegion []float64
	for _, p := range parts {
		usable := UsableEndpoints(p.Endpoints)
		// While any member is ready, a member whose endpoints all terminate gets nothing new.
		if !hasPort(b, p.Cluster) || len(usable) == 0 || ready && usable[0].State != fleet.Ready {
			continue
		}
		l := Locality{Backend: b.Backend, Cluster: p.Cluster, Place: p.Place, Unchecked: b.Unchecked}
		sampled := in.sample(usable, divisor, ofEach || len(localities) == 0)
		l.Endpoints = make([]netip.AddrPort, 0, len(sampled))
		for _, e := range sampled {
			l.Endpoints = append(l.Endpoints, netip.AddrPortFrom(e.Address, uint16(e.Port)))
		}
		if len(l.Endpoints) == 0 {
			continue
		}
		localities = append(localities, l)
		all = append(all, float64(len(usable)))
		inRegion = append(inRegion, 0)
		if p.Place.Region == in.Region {
			inRegion[len(inRegion)-1] = float64(len(usable))
		}
	}
	shares, _ := in.sharesOf(b.Backend)
	byShare := make([]float64, len(localities))
	for i, l := range localities {
		byShare[i] = float64(shares.PartsOf(l.Cluster))
	}
	// The shares may name none of the members that can answer: they are older than the endpoints, or the clusters that
	// have a share lack the port. Then the members of the region count by endpoints, or else all members.
	for _, fractions := range [][]float64{byShare, inRegion, all} {
		if sum := sumOf(fractions); sum > 0 {
			for i := range fractions {
				fractions[i] /= sum
			}
			return localities, fractions
		}
	}
	return localities, all
}

func sumOf(f []float64) float64 {
	sum := 0.0
	for _, v := range f {
		sum += v
	}
	return sum
}

// hasPort says whether a cluster has the backend's port.
func hasPort(b model.WeightedBackend, cluster fleet.ClusterName) bool {
	return b.Clusters == nil || slices.Contains(b.Clusters, cluster)
}

// spareWeightFactor multiplies all weights but those of spares, which are 1, so that a refuge (1 of TotalParts) is still
// preferred to spares by far. The sum stays below 2^32, which is Envoy's limit.
const spareWeightFactor = 4000

// merge gives every address to the first locality that has it, together with the requests that the other locality meant
// for it. It joins localities of the same name, and sets the weights.
func (a *LoadAssignment) merge(localities []weightedLocality) {
	type key struct {
		backend fleet.Backend
		cluster fleet.ClusterName
	}
	n := 0
	for _, l := range localities {
		n += len(l.Endpoints)
	}
	index, owner := make(map[key]int, len(localities)), make(map[netip.AddrPort]int, n)
	merged := make([]weightedLocality, 0, len(localities))
	for _, l := range localities {
		name := key{l.Backend, l.Cluster}
		k, ok := index[name]
		if !ok {
			k = len(merged)
			index[name] = k
			merged = append(merged, l)
			merged[k].requests, merged[k].Endpoints = 0, make([]netip.AddrPort, 0, len(l.Endpoints))
		}
		each := l.requests / float64(len(l.Endpoints))
		for _, e := range l.Endpoints {
			if first, taken := owner[e]; taken {
				merged[first].requests += each
				if first != k && !l.fallback && !slices.Contains(a.Overlaps, l.Backend) {
					a.Overlaps = append(a.Overlaps, l.Backend)
				}
				continue
			}
			owner[e] = k
			merged[k].requests += each
			merged[k].Endpoints = append(merged[k].Endpoints, e)
		}
	}
	merged = slices.DeleteFunc(merged, func(l weightedLocality) bool { return len(l.Endpoints) == 0 })
	setWeights(merged)
	for _, l := range merged {
		slices.SortFunc(l.Endpoints, netip.AddrPort.Compare)
		a.Localities = append(a.Localities, l.Locality)
	}
}

// setWeights sets the localities' weights from their requests.
func setWeights(localities []weightedLocality) {
	requests := make([]float64, len(localities))
	for i, l := range localities {
		requests[i] = l.requests
	}
	spares := slices.ContainsFunc(localities, func(l weightedLocality) bool { return l.spare })
	refuges := false
	for i, n := range traffic.RoundToParts(requests) {
		l := &localities[i]
		l.Later = n == 0
		refuges = refuges || l.Later && !l.spare
		if l.Weight = max(n, 1); spares && !l.spare {
			l.Weight *= spareWeightFactor
		}
	}
	for i := range localities {
		localities[i].Later = localities[i].Later && refuges
	}
}
