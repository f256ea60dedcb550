package rollout

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// EdgeProgress says how far one connected edge is with its pool's snapshots.
type EdgeProgress struct {
	Edge
	// Stream is unique in this process.
	Stream uint64
	// Answered is the Generation of the newest snapshot of which the edge has
	// ACKed or NACKed everything; 0: none yet.
	Answered uint64
	// Nacked are the resources whose last answer was a NACK, of any version.
	Nacked []ResourceNack
}

// View is a set of routes that some edges refuse. They get what a Model gives in
// which Instead replaces the present versions.
type View struct {
	// Instead has the Source of an earlier version of each refused route; nil: the
	// route is left out.
	Instead map[fleet.RouteRef]any

	key string
}

// maxViews bounds the Views of one pool, so that the hub's work does not grow with
// the number of edges that refuse something. Edges beyond keep what they have.
const maxViews = 4

// Reviewed is the result of a Review.
type Reviewed struct {
	// Views are needed by the next Publish, in this order.
	Views []View
	// Changed: the Views are not those of the last Review.
	Changed    bool
	Judgements []Judgement
	// Refused are the Refusals that are new. Every replica finds them.
	Refused []Refusal
}

// Refusal says that a pool refuses a version of a route: all its connected edges
// do, of all replicas, and none ever took it.
type Refusal struct {
	Pool    string
	Ref     fleet.RouteRef
	Version ObjectVersion
	// Message is Envoy's, if it says nothing about others than the route's owner.
	Message string
	// Instead is the version that the pool has; nil: none.
	Instead *Object
	// Outvoted: only some edges refuse it. It is then held against them and not
	// against the route.
	Outvoted bool
}

// refusals are those of the pool, or those of outvoted edges.
func (p *pool) refusals(outvoted bool) map[fleet.RouteRef]Refusal {
	if outvoted {
		return p.outvoted
	}
	return p.refused
}

// Review takes in how far the connected edges of each pool are, those of this replica, and
// what the other replicas say of theirs.
func (r *Rollout) Review(edges map[string][]EdgeProgress) Reviewed {
	var out Reviewed
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		p := r.pools[name]
		p.connect(edges[name])
		for _, g := range edges[name] {
			out.Judgements = append(out.Judgements, r.review(p, p.edges[g.Stream], g)...)
		}
		p.advance()
		r.noteTaken(p)
		out.Refused = append(out.Refused, r.reviewPool(p, r.hear(p))...)
	}
	out.Changed = r.assignViews()
	out.Views = r.views
	return out
}

// connect takes in which edges are connected.
func (p *pool) connect(edges []EdgeProgress) {
	connected := map[uint64]bool{}
	for _, g := range edges {
		connected[g.Stream] = true
		if p.edges[g.Stream] == nil {
			p.edges[g.Stream] = newEdge(g)
		}
	}
	maps.DeleteFunc(p.edges, func(stream uint64, _ *edge) bool { return !connected[stream] })
}

// advance takes in what all edges, and what any, have taken of the snapshots.
func (p *pool) advance() {
	settled := uint64(math.MaxUint64)
	for _, e := range p.edges {
		settled = min(settled, e.answered)
		if len(e.blocked)+len(e.verdicts) == 0 {
			p.taken = max(p.taken, e.answered)
		}
	}
	if len(p.edges) > 0 { // an edge that is away may come back with what it had
		p.settled = settled
	}
}

// noteTaken notes the routes that edges have taken while they refuse others: these
// edges have not taken the whole snapshot. Other edges take all of it (advance), so
// mostly there is nothing to look for.
func (r *Rollout) noteTaken(p *pool) {
	refusing := false
	for _, e := range p.edges {
		refusing = refusing || len(e.verdicts) > 0
	}
	if !refusing {
		return
	}
	for ref, at := range p.since {
		if !p.hasTaken(ref) && r.objects[ref].ObjectVersion == at.version && p.takenByAny(ref) {
			at.taken = true
			p.since[ref] = at
		}
	}
}

// hasTaken reports whether any edge took the present version of a route.
func (p *pool) hasTaken(ref fleet.RouteRef) bool {
	at := p.since[ref]
	return at.taken || at.generation <= p.taken
}

// reviewPool decides which routes the pool refuses, and returns those that are
// new. others are the edges of other replicas. A refusal stays while no edge is connected.
func (r *Rollout) reviewPool(p *pool, others []counted) []Refusal {
	for ref, f := range p.refused {
		if r.objects[ref].ObjectVersion != f.Version || p.takenByAny(ref) || p.since[ref].taken && p.since[ref].version == f.Version {
			delete(p.refused, ref)
		}
	}
	candidates := r.noteOutvoted(p, others)
	for ref, f := range p.outvoted {
		if r.objects[ref].ObjectVersion != f.Version || r.takenByAll(p, others, ref) {
			delete(p.outvoted, ref)
		}
	}
	var refused []Refusal
	for _, ref := range slices.SortedFunc(maps.Keys(candidates), fleet.RouteRef.Compare) {
		if _, known := p.refused[ref]; known || p.hasTaken(ref) || r.objects[ref].ObjectVersion != p.since[ref].version {
			continue
		}
		if f, all := r.refusedByAll(p, others, ref); all {
			p.refused[ref] = f
			refused = append(refused, f)
		}
	}
	return refused
}

// noteOutvoted notes the routes that any edge refuses, and returns them, and those of which
// that is not certain yet.
func (r *Rollout) noteOutvoted(p *pool, others []counted) map[fleet.RouteRef]bool {
	candidates := map[fleet.RouteRef]bool{}
	noted := map[fleet.RouteRef]*Object{}
	note := func(ref fleet.RouteRef, version ObjectVersion, instead *Object) {
		noted[ref] = newer(noted[ref], instead)
		f := Refusal{Pool: p.name, Ref: ref, Version: version, Instead: noted[ref], Outvoted: true}
		if last := p.outvoted[ref]; f.Instead == nil && last.Version == version {
			f.Instead = last.Instead
		}
		p.outvoted[ref] = f
	}
	for _, e := range p.byStream() {
		for ref, v := range e.verdicts {
			candidates[ref] = true
			if e.refuses(ref) {
				note(ref, v.version, v.instead)
			}
		}
	}
	for _, c := range others {
		for _, route := range c.Routes {
			if f, refuses := r.refusalBy(c, route.Ref); refuses {
				candidates[route.Ref] = true
				r.learn(f)
				note(route.Ref, f.Version, f.Instead)
			}
		}
	}
	return candidates
}

func (p *pool) takenByAny(ref fleet.RouteRef) bool {
	for _, e := range p.edges {
		if e.accepts(ref, p.since[ref].generation) {
			return true
		}
	}
	return false
}

func (r *Rollout) takenByAll(p *pool, others []counted, ref fleet.RouteRef) bool {
	for _, e := range p.edges {
		if !e.accepts(ref, p.since[ref].generation) {
			return false
		}
	}
	for _, c := range others {
		if _, refuses := r.refusalBy(c, ref); refuses || c.New {
			return false
		}
	}
	return len(p.edges) > 0 || len(others) > 0 && p.since[ref].taken
}

func (r *Rollout) refusedByAll(p *pool, others []counted, ref fleet.RouteRef) (all Refusal, refused bool) {
	all = Refusal{Pool: p.name, Ref: ref, Version: r.objects[ref].ObjectVersion}
	add := func(message string, instead *Object) {
		all.Message, all.Instead = max(all.Message, message), newer(all.Instead, instead)
	}
	for _, e := range p.byStream() {
		v := e.verdicts[ref]
		if !e.refuses(ref) || v.version != all.Version {
			return Refusal{}, false
		}
		add(v.message, v.instead)
	}
	for _, c := range others {
		f, refuses := r.refusalBy(c, ref)
		if !refuses {
			return Refusal{}, false
		}
		add(f.Message, f.Instead)
	}
	return all, len(p.edges)+len(others) > 0
}

// newer is the later one of two generations of a route. All replicas choose the same among
// those that edges have.
func newer(a, b *Object) *Object {
	if a == nil || b != nil && b.Generation > a.Generation {
		return b
	}
	return a
}

// Refusals are what pools refuse, by pool and route.
func (r *Rollout) Refusals() []Refusal {
	var all []Refusal
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		all = append(all, inOrder(r.pools[name].refused)...)
	}
	return all
}

func inOrder(refusals map[fleet.RouteRef]Refusal) []Refusal {
	return slices.SortedFunc(maps.Values(refusals), func(a, b Refusal) int { return a.Ref.Compare(b.Ref) })
}

// Records are what another process must know to go on: what pools refuse, and what
// single edges do.
func (r *Rollout) Records() []Refusal {
	all := r.Refusals()
	for _, name := range slices.Sorted(maps.Keys(r.pools)) {
		p := r.pools[name]
		for _, f := range inOrder(p.outvoted) {
			if _, whole := p.refused[f.Ref]; !whole {
				all = append(all, f)
			}
		}
	}
	return all
}

// EdgeRefusal is what one connected edge refuses.
type EdgeRefusal struct {
	Node      string
	Routes    []fleet.RouteRef // it gets earlier versions of them, or none
	Resources []ResourceID     // it keeps what it has of them
}

// PoolEdges are the edges of a pool, of all replicas.
type PoolEdges struct {
	Connected int
	// Remembered are those of them that only silent replicas told of.
	Remembered int
	// Refusing are those that refuse something; the one that connected first comes first.
	Refusing []EdgeRefusal
}

// PoolEdges returns the edges of a pool. own is of this replica.
func (r *Rollout) PoolEdges(pool string, own Answers) PoolEdges {
	var all PoolEdges
	for _, e := range countedEdges(pool, own[pool], r.replicas) {
		all.Connected++
		if e.silent {
			all.Remembered++
		}
		if len(e.Routes)+len(e.Resources) == 0 {
			continue
		}
		refusal := EdgeRefusal{Node: e.Node, Resources: e.Resources}
		for _, route := range e.Routes {
			refusal.Routes = append(refusal.Routes, route.Ref)
		}
		all.Refusing = append(all.Refusing, refusal)
	}
	return all
}

// viewKey identifies what the edge should get: its refused routes and what is
// served instead of each.
func (e *edge) viewKey() string {
	var lines []string
	for ref, v := range e.verdicts {
		if !v.leftOut() {
			continue
		}
		line := fmt.Sprintf("%s %s %d", ref, v.version.UID, v.version.Generation)
		if v.instead != nil {
			line += fmt.Sprintf(" %d", v.instead.Generation)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// assignViews decides which View each edge gets, and reports whether any edge gets
// another one than before.
func (r *Rollout) assignViews() (changed bool) {
	views := map[string]View{}
	for _, p := range r.pools {
		mine := map[string]bool{}
		for _, e := range p.byStream() {
			key := e.viewKey()
			if e.overflow = key != "" && !mine[key] && len(mine) == maxViews; e.overflow {
				key = ""
			}
			changed = changed || e.view != key
			if e.view = key; key == "" {
				continue
			}
			mine[key] = true
			if _, known := views[key]; !known {
				views[key] = e.viewOf(key)
			}
		}
	}
	changed = changed || len(views) != len(r.views)
	r.views = nil
	for _, key := range slices.Sorted(maps.Keys(views)) {
		r.views = append(r.views, views[key])
	}
	return changed
}

func (e *edge) viewOf(key string) View {
	view := View{Instead: map[fleet.RouteRef]any{}, key: key}
	for ref, v := range e.verdicts {
		if !v.leftOut() {
			continue
		}
		if view.Instead[ref] = nil; v.instead != nil {
			view.Instead[ref] = v.instead.Source
		}
	}
	return view
}

func (r *Rollout) modelOf(e *edge) *model.Model {
	if m, ok := r.viewModels[e.view]; ok {
		return &m
	}
	return &r.model
}

// HasWork reports whether another Review would change something although no edge
// answers: what an edge gets next is what it has.
func (r *Rollout) HasWork() bool {
	for _, p := range r.pools {
		for _, e := range p.edges {
			for id := range e.readmitNext {
				if _, blocked := e.blocked[id]; e.answered >= e.offered && (!blocked || len(e.suspectedFor(id)) == 0) {
					return true
				}
			}
		}
	}
	return false
}
