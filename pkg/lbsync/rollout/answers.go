package rollout

import (
	"cmp"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Answers are what the edges of one replica of the hub have answered, by pool. They are in
// terms that mean the same on every replica: versions of objects, and no numbers of
// snapshots, which each replica counts by itself.
type Answers map[string]PoolAnswers

// PoolAnswers are those of the edges of one pool.
type PoolAnswers struct {
	// Gateways are those that the replica serves in the pool. Not changed afterwards.
	Gateways map[fleet.ObjectName]ServedGateway
	Edges    []EdgeAnswers
	// Refused are the routes that some of Edges refuse, with what these get instead.
	Refused []Refusal
	// Taken are routes that edges of some replica refuse, and an edge of this one took.
	Taken []RouteVersion
}

// ServedGateway is a Gateway in the version that a replica published last.
type ServedGateway struct {
	Version ObjectVersion
	// Complete: all edges had it at some time. So it stays programmed, whoever leads.
	Complete bool
}

// Edge says who an edge is, on every replica.
type Edge struct {
	Node   string // the label that it gives itself
	Zone   string
	Source string    // the address that it connects from
	Since  time.Time // when its stream was opened
	// Credential is the ID of its certificate, which CA signed and which is valid between
	// Begin and End.
	Credential, CA string
	Begin, End     time.Time
}

// EdgeAnswers are those of one edge.
type EdgeAnswers struct {
	Edge
	// Left is when the stream ended; zero: the edge is connected. It counts as it was for a
	// moment, as most edges only change to another stream.
	Left time.Time
	// New: it has answered nothing on its stream yet.
	New bool
	// Lacks are the Gateways of which it has not answered all yet.
	Lacks []fleet.ObjectName
	// Refuses are the Gateways of which it NACKed what it should have.
	Refuses []RefusedGateway
	// Routes are those that it does not get in the present version, because it refuses that.
	Routes []RouteVersion
	// Resources are those of which it keeps what it has.
	Resources []ResourceID
}

// RefusedGateway is a Gateway of which an edge refuses a part, with Envoy's message if that
// is about this Gateway alone.
type RefusedGateway struct {
	Gateway fleet.ObjectName
	Message string
}

// RouteVersion is one version of a route.
type RouteVersion struct {
	Ref     fleet.RouteRef
	Version ObjectVersion
}

// Replica is another replica of the hub.
type Replica struct {
	Answers Answers
	// Silent: nothing is heard of it. Its edges count as they were, unless they are
	// connected to another replica by now.
	Silent bool
}

// SetReplicas sets what the other replicas say of their edges.
func (r *Rollout) SetReplicas(replicas []Replica) { r.replicas = replicas }

// counted is an edge among those of all replicas.
type counted struct {
	EdgeAnswers
	of        *PoolAnswers // what its replica says
	elsewhere bool         // that is another one
	// silent: that replica is.
	silent bool
}

// countedEdges are the edges of a pool of all replicas, each once. If two replicas have a
// stream of one edge, the newer one counts. What is known of an edge that left, or of one
// of a silent replica, counts until another stream of it has answered anything: so an edge
// that moves from one replica to another changes no count and no condition.
func countedEdges(pool string, own PoolAnswers, replicas []Replica) []counted {
	var live, kept []counted
	take := func(of *PoolAnswers, elsewhere, silent bool) {
		others := live
		for _, e := range of.Edges {
			c := counted{EdgeAnswers: e, of: of, elsewhere: elsewhere, silent: silent}
			if silent || !e.Left.IsZero() {
				kept = append(kept, c)
				continue
			}
			at := slices.IndexFunc(others, func(o counted) bool { return o.Zone == e.Zone && o.Source == e.Source && o.Node == e.Node })
			switch {
			case at < 0:
				live = append(live, c)
			case others[at].Since.Before(e.Since):
				live[at] = c
			}
		}
	}
	take(&own, false, false)
	for i := range replicas {
		if of, serves := replicas[i].Answers[pool]; serves {
			take(&of, true, replicas[i].Silent)
		}
	}
	slices.SortStableFunc(kept, func(a, b counted) int { return b.Since.Compare(a.Since) })
	all := live
	for _, c := range kept {
		// The address may differ: behind a NAT each connection can have another one.
		at := slices.IndexFunc(all, func(o counted) bool { return o.Zone == c.Zone && o.Node == c.Node })
		switch {
		case at < 0:
			all = append(all, c)
		case all[at].New && all[at].Left.IsZero():
			c.silent = false
			all[at] = c
		}
	}
	slices.SortStableFunc(all, func(a, b counted) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Node, b.Node)) })
	return all
}

// EdgesOf are the connected edges of a pool, of all replicas.
func EdgesOf(pool string, own Answers, replicas []Replica) []Edge {
	var edges []Edge
	for _, c := range countedEdges(pool, own[pool], replicas) {
		if c.Left.IsZero() {
			edges = append(edges, c.Edge)
		}
	}
	return edges
}

// Answers are what the edges of this replica have answered.
func (r *Rollout) Answers(edges map[string][]EdgeProgress) Answers {
	refusals, served := r.gatewayRefusals(edges), r.servedGateways()
	all := make(Answers, len(edges))
	for name, connected := range edges {
		p := r.pools[name]
		of := PoolAnswers{Gateways: served[name], Edges: make([]EdgeAnswers, len(connected))}
		for i, g := range connected {
			of.Edges[i] = EdgeAnswers{Edge: g.Edge, New: g.Answered == 0}
		}
		if p == nil {
			all[name] = of
			continue
		}
		r.addGateways(p, connected, of.Edges, refusals[name])
		for i, g := range connected {
			if e := p.edges[g.Stream]; e != nil {
				p.addRefused(e, &of.Edges[i])
			}
		}
		of.Refused, of.Taken = p.refusedByOwn(), p.takenByOwn(r.objects)
		all[name] = of
	}
	return all
}

// Unsaid reports whether Answers would say something new although no edge answered: a
// Gateway is complete.
func (r *Rollout) Unsaid() bool { return r.served == nil }

// addGateways adds what edges of a pool lack or refuse of which Gateway. refusals are by
// Gateway and stream.
func (r *Rollout) addGateways(p *pool, connected []EdgeProgress, answers []EdgeAnswers, refusals map[fleet.ObjectRef]map[uint64]string) {
	for name, rollout := range r.gateways {
		since, serves := rollout.pools[p.name]
		if !serves {
			continue
		}
		refusing := refusals[gatewayRef(name)]
		for i, g := range connected {
			if g.Answered > 0 && g.Answered < since {
				answers[i].Lacks = append(answers[i].Lacks, name)
			}
			if message, refuses := refusing[g.Stream]; refuses {
				answers[i].Refuses = append(answers[i].Refuses, RefusedGateway{name, message})
			}
		}
	}
	for i := range answers { // the same order each time, so that what did not change is equal
		slices.SortFunc(answers[i].Lacks, fleet.ObjectName.Compare)
		slices.SortFunc(answers[i].Refuses, func(a, b RefusedGateway) int { return a.Gateway.Compare(b.Gateway) })
	}
}

// addRefused adds the routes and resources that an edge refuses.
func (p *pool) addRefused(e *edge, to *EdgeAnswers) {
	for ref, v := range e.verdicts {
		if v.state == Rejected {
			to.Routes = append(to.Routes, RouteVersion{ref, v.version})
		}
	}
	for id := range e.judged {
		if wanted := p.resource(e, id); wanted != nil && wanted.Version == e.judged[id] {
			to.Resources = append(to.Resources, id)
		}
	}
	slices.SortFunc(to.Routes, func(a, b RouteVersion) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(to.Resources, ResourceID.compare)
}

// refusedByOwn are the routes that edges of this replica refuse.
func (p *pool) refusedByOwn() []Refusal {
	found := map[fleet.RouteRef]Refusal{}
	for _, e := range p.byStream() {
		for ref, v := range e.verdicts {
			if v.state == Rejected {
				f := found[ref]
				found[ref] = Refusal{Pool: p.name, Ref: ref, Version: v.version, Message: max(f.Message, v.message), Instead: newer(f.Instead, v.instead)}
			}
		}
	}
	return inOrder(found)
}

// takenByOwn are the refused routes that an edge of this replica took, now or before.
func (p *pool) takenByOwn(objects map[fleet.ObjectRef]Object) []RouteVersion {
	var taken []RouteVersion
	for _, refused := range []map[fleet.RouteRef]Refusal{p.refused, p.outvoted} {
		for ref, f := range refused {
			at := p.since[ref]
			// What a status accepted before this process started counts as taken, but is no
			// proof for another replica.
			if at.version == f.Version && objects[ref].ObjectVersion == f.Version && (at.taken || max(at.generation, 1) <= p.taken) {
				taken = append(taken, RouteVersion{ref, f.Version})
			}
		}
	}
	slices.SortFunc(taken, func(a, b RouteVersion) int { return a.Ref.Compare(b.Ref) })
	return slices.CompactFunc(taken, func(a, b RouteVersion) bool { return a.Ref == b.Ref })
}

// hear takes in what other replicas say of a pool: which refused routes an edge of theirs took,
// and what edges get instead of those that they refuse. It returns the connected edges of
// theirs, as they count.
func (r *Rollout) hear(p *pool) []counted {
	for i := range r.replicas {
		for _, taken := range r.replicas[i].Answers[p.name].Taken {
			if at := p.since[taken.Ref]; at.version == taken.Version && !at.taken {
				at.taken = true
				p.since[taken.Ref] = at
			}
		}
	}
	var own PoolAnswers
	for _, e := range p.byStream() {
		own.Edges = append(own.Edges, EdgeAnswers{Edge: e.Edge})
	}
	return slices.DeleteFunc(countedEdges(p.name, own, r.replicas), func(c counted) bool { return !c.elsewhere || !c.Left.IsZero() })
}

// refusalBy is what another replica says of a route that its edge refuses, if that is the present
// version.
func (r *Rollout) refusalBy(c counted, ref fleet.RouteRef) (f Refusal, refuses bool) {
	version := r.objects[ref].ObjectVersion
	if !slices.Contains(c.Routes, RouteVersion{ref, version}) {
		return Refusal{}, false
	}
	at := slices.IndexFunc(c.of.Refused, func(f Refusal) bool { return f.Ref == ref && f.Version == version })
	if at < 0 {
		return Refusal{Ref: ref, Version: version}, true
	}
	return c.of.Refused[at], true
}

// learn keeps the earlier version that edges of another replica get of a route that they
// refuse: they may come here.
func (r *Rollout) learn(f Refusal) {
	if f.Instead == nil || f.Instead.UID != f.Version.UID || f.Instead.Generation >= f.Version.Generation {
		return
	}
	all := r.earlier[f.Ref]
	at, known := slices.BinarySearchFunc(all, f.Instead.Generation, func(o earlier, generation int64) int { return cmp.Compare(o.Generation, generation) })
	if !known && len(all) >= maxEarlier {
		return
	}
	if !known {
		all = slices.Insert(slices.Clone(all), at, earlier{Object: *f.Instead, since: map[string]uint64{}, takenIn: map[string]bool{}})
		r.earlier[f.Ref] = all
	}
	all[at].takenIn[f.Pool] = true
}
