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
	// Parts of the assignment's backends and fallback; others are ignored. A backend that is there twice, with two ports, has
	// its parts in Ports instead.
	Parts func(b model.WeightedBackend) []Part
	// Shares of Region, by backend. A Service of the hub's own cluster needs none.
	Shares []BackendShares
}

// LoadAssignment says which addresses answer for one assignment in one region, and in which proportion.
type LoadAssignment struct {
	Key string
	// Localities sorted by backend, cluster, and then those of the fallback; no address is in two.
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
	// Envoy moves requests of unhealthy localities only to localities that have a weight. Where there are spares, for
	// the case that all others are dead, theirs is 1 and all other weights are spareScale times as much.
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

// Assign joins one assignment with the endpoints and the shares of one region. What backends that are down leave goes to
// the assignment's other backends and its fallback; as long as none is down, the fallback stands by.
func Assign(in AssignInput) LoadAssignment {
	own, fallback := in.gatherAll()
	out := LoadAssignment{Key: in.Assignment.Key, Shares: own.shares}
	if total := own.total(); total > 0 {
		out.Drop = uint32(own.dropped/total*Whole + 0.5)
	}
	toUp, toDown, toFallback := Takeover(own.up, own.down, fallback.up)
	own.scale(toUp, toDown)
	for _, p := range fallback.portions {
		p.fallback, p.spare = true, toFallback == 0
		if p.spare && p.part == 0 || own.down > 0 && p.down {
			continue
		}
		p.part *= toFallback
		own.portions = append(own.portions, p)
	}
	out.merge(own.portions)
	return out
}

// Demanded gives the part of an assignment's requests that is each backend's demand: by weight. Those that took over
// from backends that are down have that, too, for it lasts; and those that are down keep their own.
func Demanded(in AssignInput) map[fleet.Backend]float64 {
	own, fallback := in.gatherAll()
	toUp, _, toFallback := Takeover(own.up, own.down, fallback.up)
	out, total := map[fleet.Backend]float64{}, own.total()
	for _, b := range own.backends {
		factor := 1.0
		if b.state == up {
			factor = toUp
		}
		out[b.Backend] += b.weight * factor / total
	}
	for _, b := range fallback.backends {
		if b.state == up && toFallback > 0 {
			out[b.Backend] += b.weight * toFallback / total
		}
	}
	return out
}

// triedOfDown bounds what a small backend that is down keeps.
const triedOfDown = 0.1

// Takeover says what the weights of an assignment's backends are multiplied by, given the sums of weights of those that
// are up and down, and of the fallback that is up: 1 % of them all (of the weight of those down 10 % at most) tries who
// is down, and the others take over the rest in proportion.
func Takeover(up, down, fallback float64) (toUp, toDown, toFallback float64) {
	if down <= 0 || up+fallback <= 0 {
		return 1, 1, 0
	}
	tries := min(down*triedOfDown, (up+down+fallback)*probeShare)
	more := (down - tries) / (up + fallback)
	return 1 + more, tries / down, more
}

// portion is a locality and its part of the requests. A spare has none, and gets those that nobody else answers.
type portion struct {
	Locality
	part            float64
	fallback, spare bool
	down            bool // of a backend that is down
}

// state of a backend in a region.
type state int

const (
	up    state = iota
	down        // it has endpoints, and all its members are dead
	empty       // it has no endpoint
)

// weighted is a backend of an assignment with its weight.
type weighted struct {
	fleet.Backend
	weight float64
	state  state
}

// gathered is what a list of backends comes to: their sums of weights by state, and the portions of those with
// endpoints, which sum to their weights.
type gathered struct {
	backends          []weighted
	portions          []portion
	up, down, dropped float64
	shares            []BackendShares
}

func (g *gathered) total() float64 { return g.up + g.down + g.dropped }

// gatherAll gathers an assignment's own backends and its fallback; where Kubernetes says that there is nobody, that is
// an answer, and there is no fallback.
func (in AssignInput) gatherAll() (own, fallback gathered) {
	own = in.gather(in.Assignment.Backends)
	if len(own.portions) > 0 {
		fallback = in.gather(in.Assignment.Fallback)
	}
	return own, fallback
}

func (in AssignInput) gather(list []model.WeightedBackend) (out gathered) {
	backends := slices.Clone(list)
	slices.SortStableFunc(backends, func(a, b model.WeightedBackend) int {
		return cmp.Or(a.Backend.Compare(b.Backend), cmp.Compare(a.Port, b.Port))
	})
	for _, b := range backends {
		if b.Weight == 0 {
			continue
		}
		localities, parts := in.localitiesOf(b)
		shares, found := in.sharesOf(b.Backend)
		if found && !slices.ContainsFunc(out.shares, shares.sameBackend) {
			out.shares = append(out.shares, shares)
		}
		one := weighted{Backend: b.Backend, weight: float64(b.Weight)}
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
			out.portions = append(out.portions, portion{Locality: l, part: one.weight * parts[i], down: one.state == down})
		}
	}
	return out
}

func (g *gathered) scale(toUp, toDown float64) {
	for i := range g.portions {
		if g.portions[i].down {
			g.portions[i].part *= toDown
		} else {
			g.portions[i].part *= toUp
		}
	}
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

// spareScale multiplies all weights but those of spares, which are 1, so that a refuge (1 of Whole) is still
// preferred to spares by far. The sum stays below 2^32, which is what Envoy takes.
const spareScale = 4000

// merge gives every address to the first locality that has it, together with the part of the requests that the other
// locality meant for it, joins localities of the same name, and sets the weights.
func (a *LoadAssignment) merge(portions []portion) {
	type key struct {
		backend fleet.Backend
		cluster fleet.ClusterName
	}
	byName, owner := map[key]int{}, map[netip.AddrPort]int{}
	var kept []portion
	for _, p := range portions {
		name := key{p.Backend, p.Cluster}
		k, known := byName[name]
		if !known {
			k = len(kept)
			byName[name] = k
			kept = append(kept, p)
			kept[k].part, kept[k].Endpoints = 0, nil
		}
		each := p.part / float64(len(p.Endpoints))
		for _, e := range p.Endpoints {
			if first, taken := owner[e]; taken {
				kept[first].part += each
				if first != k && !p.fallback && !slices.Contains(a.Overlaps, p.Backend) {
					a.Overlaps = append(a.Overlaps, p.Backend)
				}
				continue
			}
			owner[e] = k
			kept[k].part += each
			kept[k].Endpoints = append(kept[k].Endpoints, e)
		}
	}
	kept = slices.DeleteFunc(kept, func(p portion) bool { return len(p.Endpoints) == 0 })
	for _, p := range weighed(kept) {
		slices.SortFunc(p.Endpoints, netip.AddrPort.Compare)
		a.Localities = append(a.Localities, p.Locality)
	}
}

// weighed sets the weights of portions. A weight is at least 1.
func weighed(portions []portion) []portion {
	fractions := make([]float64, len(portions))
	for i, p := range portions {
		fractions[i] = p.part
	}
	spares := slices.ContainsFunc(portions, func(p portion) bool { return p.spare })
	for i, n := range wholeParts(fractions) {
		p := &portions[i]
		if p.Weight = max(n, 1); spares && !p.spare {
			p.Weight *= spareScale
		}
	}
	return portions
}

// offers says whether a cluster has the backend's port.
func offers(b model.WeightedBackend, cluster fleet.ClusterName) bool {
	return b.Clusters == nil || slices.Contains(b.Clusters, cluster)
}
