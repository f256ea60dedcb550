package rollout

import (
	"cmp"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// State is what an edge's NACKs mean for one version of a route on that edge. The
// package documentation has the transitions.
type State uint8

const (
	// Served routes are sent. It is the state of routes without a verdict.
	Served State = iota
	// Suspected routes are not sent: one of several made the edge NACK.
	Suspected
	// Readmitted routes are sent again, to find out which of them is at fault.
	Readmitted
	// Rejected routes are not sent: the edge refuses this version.
	Rejected
)

// String gives the state's name.
func (s State) String() string {
	return [...]string{"Served", "Suspected", "Readmitted", "Rejected"}[s]
}

// verdict is the State of one version of a route on one edge.
type verdict struct {
	version ObjectVersion
	state   State
	message string // Envoy's, as far as the route's owner may read them
	// resource is the one that was NACKed.
	resource ResourceID
	// instead is the earlier version that the edge gets; nil: none.
	instead *Object
	// unproven: the edge has not yet taken instead.
	unproven bool
	// since is the first snapshot that has a Readmitted route again.
	since uint64
}

func (v verdict) leftOut() bool { return v.state == Suspected || v.state == Rejected }

// edge is one connected edge of a pool.
type edge struct {
	Edge
	stream   uint64
	answered uint64 // the last snapshot of which it has answered everything
	// blocked are the resources whose last answer was a NACK, with the snapshot
	// that the edge had answered before.
	blocked  map[ResourceID]uint64
	judged   map[ResourceID]string // the version of each that was judged
	verdicts map[fleet.RouteRef]verdict
	// fallback are the earlier versions that the edge has of routes of which it
	// refused a version that is gone by now.
	fallback    map[fleet.RouteRef]Object
	without     map[fleet.RouteRef]bool // of which it has no version
	readmitNext map[ResourceID]int      // how many Suspected routes to send again next
	view        string                  // the View that it gets; empty: its pool's snapshot
	overflow    bool                    // there are too many Views for it to have one
	offered     uint64                  // the snapshot in which what it gets of its View last changed
}

func newEdge(g EdgeProgress) *edge {
	return &edge{Edge: g.Edge, stream: g.Stream, blocked: map[ResourceID]uint64{}, judged: map[ResourceID]string{},
		verdicts: map[fleet.RouteRef]verdict{}, fallback: map[fleet.RouteRef]Object{}, without: map[fleet.RouteRef]bool{}, readmitNext: map[ResourceID]int{}}
}

// review takes in how far an edge is: it judges its NACKs and readmits routes.
func (r *Rollout) review(p *pool, e *edge, g EdgeProgress) []Judgement {
	r.forgetVerdicts(e)
	var judgements []Judgement
	blocked, taken := map[ResourceID]uint64{}, map[fleet.RouteRef]bool{} // taken from the edge in this Review
	for _, n := range g.Nacked {
		wanted := p.resource(e, n.Resource)
		stands := wanted != nil && wanted.Version == n.Version && !e.explains(wanted)
		if !stands && g.Answered == p.snapshot.Generation { // it has what it gets instead
			continue
		}
		since, before := e.blocked[n.Resource]
		if !before {
			since = e.answered
		}
		since = max(since, n.Has) // the hub may have published faster than the edge answers
		blocked[n.Resource] = since
		// One route may be in several resources: once it is taken from the edge, they
		// all get other versions.
		explained := wanted != nil && slices.ContainsFunc(routesOf(wanted), func(ref fleet.RouteRef) bool { return taken[ref] })
		if stands && !explained && !e.overflow && e.judged[n.Resource] != n.Version {
			e.judged[n.Resource] = n.Version
			j := r.judge(p, e, n, since, wanted)
			judgements = append(judgements, j)
			for _, ref := range j.Candidates {
				taken[ref] = true
			}
		}
	}
	e.blocked = blocked
	for id := range e.judged {
		if _, still := blocked[id]; !still {
			delete(e.judged, id)
		}
	}
	e.answered = g.Answered
	if e.answered >= e.offered {
		r.settle(p, e)
	}
	return judgements
}

// explains reports whether a resource that every edge of the pool gets is NACKed
// because of a route that the edge refuses: nothing that it uses needs it.
func (e *edge) explains(resource *envoy.Resource) bool {
	if t := idOf(resource).Type(); t == "Listener" || t == "RouteConfiguration" {
		return false // it gets its own
	}
	return slices.ContainsFunc(routesOf(resource), func(ref fleet.RouteRef) bool { return e.verdicts[ref].leftOut() })
}

// forgetVerdicts drops the verdicts about versions that are gone. The edge still
// has the version that it got instead.
func (r *Rollout) forgetVerdicts(e *edge) {
	for ref, v := range e.verdicts {
		present, exists := r.objects[ref]
		if exists && present.ObjectVersion == v.version {
			continue
		}
		if v.instead != nil && exists && present.UID == v.version.UID {
			e.fallback[ref] = *v.instead
		}
		if v.leftOut() && v.instead == nil {
			e.without[ref] = true
		}
		delete(e.verdicts, ref)
	}
	for ref, o := range e.fallback {
		if r.objects[ref].UID != o.UID {
			delete(e.fallback, ref)
		}
	}
}

// settle takes in that the edge has answered all of its View: what it gets
// instead of refused routes is proven, and Suspected routes are readmitted.
func (r *Rollout) settle(p *pool, e *edge) {
	if len(e.blocked) == 0 {
		for ref, v := range e.verdicts {
			if v.unproven = false; v.state == Readmitted && v.since <= e.answered {
				delete(e.verdicts, ref)
			} else {
				e.verdicts[ref] = v
			}
		}
		for ref := range e.fallback {
			if _, judged := e.verdicts[ref]; !judged && !r.unpublished[ref] && p.since[ref].generation <= e.answered {
				delete(e.fallback, ref)
			}
		}
		for ref := range e.without {
			if _, judged := e.verdicts[ref]; !judged && !r.unpublished[ref] && p.since[ref].generation <= e.answered {
				delete(e.without, ref)
			}
		}
	}
	e.readmit(p.snapshot.Generation + 1)
}

// readmit sends a part of the Suspected routes of a resource again once the edge
// has ACKed the resource without them. If that is NACKed, they alone are the
// candidates, and fewer are readmitted next; if it is ACKed, twice as many. So n
// routes that changed at once, k of them at fault, need about k log n versions.
func (e *edge) readmit(generation uint64) {
	for id, n := range e.readmitNext {
		suspected := e.suspectedFor(id)
		if _, blocked := e.blocked[id]; blocked && len(suspected) > 0 {
			continue
		}
		for _, ref := range suspected[:min(n, len(suspected))] {
			v := e.verdicts[ref]
			v.state, v.since = Readmitted, generation
			if v.instead != nil {
				e.fallback[ref] = *v.instead
			} else {
				e.without[ref] = true
			}
			e.verdicts[ref] = v
		}
		if e.readmitNext[id] = 2 * n; n >= len(suspected) {
			delete(e.readmitNext, id)
		}
	}
}

// suspectedFor are the routes that are Suspected because of one resource, sorted.
func (e *edge) suspectedFor(id ResourceID) []fleet.RouteRef {
	var refs []fleet.RouteRef
	for ref, v := range e.verdicts {
		if v.state == Suspected && v.resource == id {
			refs = append(refs, ref)
		}
	}
	slices.SortFunc(refs, fleet.RouteRef.Compare)
	return refs
}

// accepts reports whether the edge has taken the present version of a route.
func (e *edge) accepts(ref fleet.RouteRef, since uint64) bool {
	return e.answered >= max(since, e.offered, e.verdicts[ref].since) && len(e.blocked) == 0 && !e.verdicts[ref].leftOut()
}

// refuses reports whether the edge rejects the present version of a route.
func (e *edge) refuses(ref fleet.RouteRef) bool { return e.verdicts[ref].state == Rejected }

// Judgement says what an edge's NACK led to.
type Judgement struct {
	Pool, Node string
	Nack       ResourceNack
	// Candidates are the routes that may have caused it. Without any, the edge keeps
	// what it has.
	Candidates []fleet.RouteRef
	// Rejected are those of them that the edge does not get any more for sure.
	Rejected []fleet.RouteRef
}

// ResourceNack is an edge's last answer about a resource, if that was a NACK.
type ResourceNack struct {
	Resource ResourceID
	Version  string
	Message  string // Envoy's error
	Fresh    bool   // the edge has no version of the resource
	// Has is a snapshot whose version of the resource the edge has; 0: none is known.
	Has uint64
}

// judge decides which routes caused a NACK, and takes them from the edge.
func (r *Rollout) judge(p *pool, e *edge, n ResourceNack, since uint64, resource *envoy.Resource) Judgement {
	result := Judgement{Pool: p.name, Node: e.Node, Nack: n}
	routes := routesOf(resource)
	candidates, definite := r.candidates(p, e, n, since, routes)
	result.Candidates = candidates
	for _, ref := range candidates {
		version := p.since[ref].version
		if v := e.verdicts[ref]; v.leftOut() { // what it got instead is at fault
			own := r.versionIn(p, ref, since)
			if own != nil && v.instead != nil && own.ObjectVersion == v.instead.ObjectVersion {
				own = nil
			}
			v.instead, v.unproven, e.without[ref] = own, false, own == nil
			e.verdicts[ref] = v
			continue
		}
		if r.objects[ref].ObjectVersion != version { // the route has changed since
			continue
		}
		next := verdict{version: version, state: Suspected, resource: n.Resource, message: r.readableMessage(e, n, ref, routes)}
		next.instead, next.unproven = r.fallbackFor(p, e, ref, since)
		if definite {
			next.state = Rejected
			result.Rejected = append(result.Rejected, ref)
		}
		e.verdicts[ref] = next
	}
	delete(e.readmitNext, n.Resource)
	if len(e.suspectedFor(n.Resource)) > 0 {
		e.readmitNext[n.Resource] = max(1, len(candidates)/2)
	}
	return result
}

// fallbackFor is the version of a route that an edge gets instead of the present one: the
// last one that an edge of its pool took, or else the one that it has. So edges that are
// at different versions need one View. has is the last snapshot that the edge took.
func (r *Rollout) fallbackFor(p *pool, e *edge, ref fleet.RouteRef, has uint64) (instead *Object, unproven bool) {
	if o, falls := e.fallback[ref]; falls {
		return &o, false
	}
	if e.without[ref] {
		return nil, false
	}
	own := r.versionIn(p, ref, has)
	for _, o := range slices.Backward(r.earlier[ref]) {
		if o.takenIn[p.name] {
			return &o.Object, own == nil || own.ObjectVersion != o.ObjectVersion
		}
	}
	return own, false
}

// versionIn is the earlier version of a route that a snapshot has, or nil.
func (r *Rollout) versionIn(p *pool, ref fleet.RouteRef, snapshot uint64) *Object {
	for _, o := range slices.Backward(r.earlier[ref]) {
		if since, published := o.since[p.name]; published && snapshot > 0 && since <= snapshot {
			return &o.Object
		}
	}
	return nil
}

// candidates are the routes of a NACKed resource that may have caused the NACK,
// sorted. definite: each of them is at fault, and not just one of them.
//
// They are the routes that changed since the edge last took the resource. An edge
// that took nothing yet on this stream may have come with an older version of any
// route, or with none, so that says nothing there: it is probably one that is
// refused by others of its pool, or one that nobody there has taken. If none is, an edge
// that has an older version of the resource keeps it: the hub does not know which
// routes are in that, and must not try at its expense.
//
// If Envoy's message quotes values of some candidates, only these are.
func (r *Rollout) candidates(p *pool, e *edge, n ResourceNack, since uint64, routes []fleet.RouteRef) (found []fleet.RouteRef, definite bool) {
	var served, unproven []fleet.RouteRef
	for _, ref := range routes {
		if v := e.verdicts[ref]; !v.leftOut() {
			served = append(served, ref)
		} else if v.unproven {
			unproven = append(unproven, ref)
		}
	}
	found = served
	if since > 0 {
		found = filter(served, func(ref fleet.RouteRef) bool {
			return max(p.since[ref].generation, e.verdicts[ref].since) > since
		})
	}
	if len(unproven) > 0 && (since == 0 || len(found) == 0) {
		return sortedRoutes(unproven), true
	}
	if quoted := quotedIn(r.modelOf(e), found, n.Message); len(quoted) > 0 {
		return sortedRoutes(quoted), true
	}
	if since > 0 {
		return sortedRoutes(found), len(found) == 1
	}
	for _, probable := range []func(fleet.RouteRef) bool{
		func(ref fleet.RouteRef) bool { return r.refusedBefore(p, ref) },
		func(ref fleet.RouteRef) bool { return !p.hasTaken(ref) },
		func(ref fleet.RouteRef) bool { return p.since[ref].generation > 0 }, // no status accepted it before this hub started
	} {
		if some := filter(found, probable); len(some) > 0 && (len(some) < len(found) || !n.Fresh) {
			return sortedRoutes(some), false
		}
	}
	if !n.Fresh {
		return nil, false
	}
	return sortedRoutes(found), len(found) == 1
}

// refusedBefore reports whether the pool, or any edge of it, refuses the present
// version of a route. What other pools refuse does not count: their edges must have
// no say here.
func (r *Rollout) refusedBefore(p *pool, ref fleet.RouteRef) bool {
	for _, f := range []Refusal{p.refused[ref], p.outvoted[ref]} {
		if f.Pool != "" && f.Version == r.objects[ref].ObjectVersion {
			return true
		}
	}
	for _, e := range p.edges {
		if e.refuses(ref) {
			return true
		}
	}
	return false
}

func filter(refs []fleet.RouteRef, keep func(fleet.RouteRef) bool) []fleet.RouteRef {
	return slices.DeleteFunc(slices.Clone(refs), func(ref fleet.RouteRef) bool { return !keep(ref) })
}

func sortedRoutes(refs []fleet.RouteRef) []fleet.RouteRef {
	slices.SortFunc(refs, fleet.RouteRef.Compare)
	return refs
}

// byStream are the edges of a pool, the oldest stream first.
func (p *pool) byStream() []*edge {
	edges := make([]*edge, 0, len(p.edges))
	for _, e := range p.edges {
		edges = append(edges, e)
	}
	slices.SortFunc(edges, func(a, b *edge) int { return cmp.Compare(a.stream, b.stream) })
	return edges
}
