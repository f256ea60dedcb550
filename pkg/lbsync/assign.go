package lbsync

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Part is one member's part of one backend, as its EndpointSlices say, the backend's port resolved and only admitted
// addresses left.
type Part struct {
	Backend   fleet.Backend
	Cluster   fleet.ClusterName
	Place     fleet.Place
	Endpoints []fleet.Endpoint
}

// BackendShares is where one region's requests for one backend go.
type BackendShares struct {
	Backend fleet.Backend
	RegionShares
}

// AssignInput is all that one load assignment of one region depends on.
type AssignInput struct {
	Assignment model.Assignment
	// Region that the load assignment is for.
	Region string
	// Parts of the assignment's backends; others are ignored. A backend that is there twice, with two ports, has
	// its parts in Ports instead.
	Parts func(b model.WeightedBackend) []Part
	// Shares of Region, by backend. A Service of the hub's own cluster needs none.
	Shares []BackendShares
}

// LoadAssignment says which addresses answer for one assignment in one region, and in which proportion.
type LoadAssignment struct {
	Key string
	// Localities sorted by backend, cluster; no address is in two.
	Localities []Locality
	// Drop is the part of Whole that is answered 503: backends without any endpoint keep their weight.
	Drop uint32
	// Shares that it was made with, sorted by backend: its version carries them.
	Shares []BackendShares
	// Overlaps are the backends that have an address in common with one before them in order. Their part of the
	// requests goes to the same addresses, but load reports count it for the other backend.
	Overlaps []fleet.Backend
}

// Locality is one member's part of one backend.
type Locality struct {
	Backend fleet.Backend
	Cluster fleet.ClusterName
	Place   fleet.Place
	// Weight is at least 1; all together sum to Whole and one for each refuge. A refuge is a member without a share:
	// Envoy moves requests of unhealthy localities only to localities that have a weight.
	Weight    uint32
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
	words := strings.Split(s, "/")
	kind := fleet.Import
	if len(words) == 4 && words[1] == "svc" {
		kind, words = fleet.Service, append(words[:1:1], words[2:]...)
	}
	if len(words) != 3 || slices.Contains(words, "") {
		return "", fleet.Backend{}, false
	}
	return fleet.ClusterName(words[0]), fleet.Backend{Kind: kind, Name: fleet.ServiceName{Namespace: words[1], Name: words[2]}}, true
}

// Usable gives the endpoints of one part that take new requests: the ready ones, and where there is none those that
// terminate but still serve, as kube-proxy does (KEP-1669). The others are left out rather than marked as draining:
// requests in flight finish in both cases, but Envoy counts draining hosts as a loss of the locality's health, and
// would move part of its share elsewhere during every rolling update.
func Usable(endpoints []fleet.Endpoint) []fleet.Endpoint {
	for _, state := range []fleet.EndpointState{fleet.Ready, fleet.Draining} {
		usable := slices.DeleteFunc(slices.Clone(endpoints), func(e fleet.Endpoint) bool { return e.State != state })
		if len(usable) > 0 {
			slices.SortFunc(usable, fleet.Endpoint.Compare)
			return usable
		}
	}
	return nil
}

// ReadyIn counts the ready endpoints of a part: what Split calls n.
func ReadyIn(endpoints []fleet.Endpoint) int {
	n := 0
	for _, e := range endpoints {
		if e.State == fleet.Ready {
			n++
		}
	}
	return n
}

// Assign joins one assignment with the endpoints and the shares of one region.
func Assign(in AssignInput) LoadAssignment {
	out := LoadAssignment{Key: in.Assignment.Key}
	backends := slices.Clone(in.Assignment.Backends)
	slices.SortStableFunc(backends, func(a, b model.WeightedBackend) int {
		return cmp.Or(a.Backend.Compare(b.Backend), cmp.Compare(a.Port, b.Port))
	})
	total, dropped := 0.0, 0.0
	var fractions []float64
	for _, b := range backends {
		if b.Weight == 0 {
			continue
		}
		total += float64(b.Weight)
		localities, parts := in.localitiesOf(b)
		if len(localities) == 0 {
			dropped += float64(b.Weight)
		}
		for i, l := range localities {
			out.Localities = append(out.Localities, l)
			fractions = append(fractions, float64(b.Weight)*parts[i])
		}
		if shares, found := in.sharesOf(b.Backend); found && !slices.ContainsFunc(out.Shares, shares.sameBackend) {
			out.Shares = append(out.Shares, shares)
		}
	}
	if total > 0 {
		out.Drop = uint32(dropped/total*Whole + 0.5)
	}
	out.merge(fractions)
	return out
}

func (s BackendShares) sameBackend(other BackendShares) bool { return s.Backend == other.Backend }

func (in AssignInput) sharesOf(b fleet.Backend) (BackendShares, bool) {
	k := slices.IndexFunc(in.Shares, func(s BackendShares) bool { return s.Backend == b })
	if k < 0 {
		return BackendShares{}, false
	}
	return in.Shares[k], true
}

// localitiesOf lists the members that can answer for b, sorted by cluster, and which fraction of b's requests each gets.
func (in AssignInput) localitiesOf(b model.WeightedBackend) ([]Locality, []float64) {
	parts := slices.Clone(in.Parts(b))
	slices.SortStableFunc(parts, func(a, b Part) int { return cmp.Compare(a.Cluster, b.Cluster) })
	ready := slices.ContainsFunc(parts, func(p Part) bool { return offers(b, p.Cluster) && ReadyIn(p.Endpoints) > 0 })
	var localities []Locality
	var counts, near []float64
	for _, p := range parts {
		usable := Usable(p.Endpoints)
		// While any member is ready, one whose endpoints all terminate gets nothing new.
		if !offers(b, p.Cluster) || len(usable) == 0 || ready && usable[0].State != fleet.Ready {
			continue
		}
		l := Locality{Backend: b.Backend, Cluster: p.Cluster, Place: p.Place, Unchecked: b.Unchecked}
		for _, e := range usable {
			l.Endpoints = append(l.Endpoints, netip.AddrPortFrom(e.Address, uint16(e.Port)))
		}
		localities = append(localities, l)
		counts = append(counts, float64(len(usable)))
		near = append(near, 0)
		if p.Place.Region == in.Region {
			near[len(near)-1] = float64(len(usable))
		}
	}
	shares, _ := in.sharesOf(b.Backend)
	given := make([]float64, len(localities))
	for i, l := range localities {
		given[i] = float64(shares.Of(l.Cluster))
	}
	// Shares that name none of the members that can answer (they are older than the endpoints, or the clusters that
	// have a share lack the port): those of the region by endpoints, or else all by endpoints.
	for _, f := range [][]float64{given, near, counts} {
		if sum := sumOf(f); sum > 0 {
			for i := range f {
				f[i] /= sum
			}
			return localities, f
		}
	}
	return localities, counts
}

func sumOf(f []float64) float64 {
	sum := 0.0
	for _, v := range f {
		sum += v
	}
	return sum
}

// merge gives every address to the first locality that has it, together with the part of the requests that the other
// locality meant for it, joins localities of the same name, and sets the weights.
func (a *LoadAssignment) merge(fractions []float64) {
	type key struct {
		backend fleet.Backend
		cluster fleet.ClusterName
	}
	byName, owner := map[key]int{}, map[netip.AddrPort]int{}
	var kept []Locality
	var weights []float64
	for i, l := range a.Localities {
		name := key{l.Backend, l.Cluster}
		k, known := byName[name]
		if !known {
			k = len(kept)
			byName[name] = k
			kept, weights = append(kept, Locality{Backend: l.Backend, Cluster: l.Cluster, Place: l.Place, Unchecked: l.Unchecked}), append(weights, 0)
		}
		each := fractions[i] / float64(len(l.Endpoints))
		for _, e := range l.Endpoints {
			if first, taken := owner[e]; taken {
				weights[first] += each
				if first != k && !slices.Contains(a.Overlaps, l.Backend) {
					a.Overlaps = append(a.Overlaps, l.Backend)
				}
				continue
			}
			owner[e] = k
			weights[k] += each
			kept[k].Endpoints = append(kept[k].Endpoints, e)
		}
	}
	parts := wholeParts(weights)
	a.Localities = nil
	for i, l := range kept {
		if len(l.Endpoints) == 0 {
			continue
		}
		slices.SortFunc(l.Endpoints, netip.AddrPort.Compare)
		l.Weight = max(parts[i], 1)
		a.Localities = append(a.Localities, l)
	}
}

// offers says whether a cluster has the backend's port.
func offers(b model.WeightedBackend, cluster fleet.ClusterName) bool {
	return b.Clusters == nil || slices.Contains(b.Clusters, cluster)
}
