package rollout

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// GatewayProgress says how far the edges of a Gateway's pools are.
type GatewayProgress struct {
	Generation int64 // metadata.generation of the Gateway that Acked is about
	Connected  int   // edges that are connected
	Acked      int   // of those, edges that have ACKed all of the Gateway at Generation
	// Unserved are the EdgePools in which the Gateway has an address and no edge
	// is connected, sorted.
	Unserved []string
	// Refused are the EdgePools whose connected edges all refuse a part of the
	// Gateway, and keep what they have of it. Sorted; they do not count above.
	Refused []string
	// Message is Envoy's for one of Refused, if it is about this Gateway alone.
	Message string
}

// gatewayRollout is one version of a Gateway on its way to the edges.
type gatewayRollout struct {
	object ObjectVersion
	pools  map[string]uint64 // the snapshot of each pool that was the first to have it
	// complete: all connected edges had it at the same time. Edges that connect
	// later do not make the Gateway unprogrammed: they accept no traffic for it
	// until they have the whole snapshot.
	complete bool
}

// gatewayRollouts follows Gateways from being published to being programmed.
type gatewayRollouts map[fleet.ObjectName]gatewayRollout

// published starts the rollout of each Gateway that is new in a Model, or has
// another version or other pools than before, and reports whether any is, or is gone.
func (g gatewayRollouts) published(m *model.Model, objects map[fleet.ObjectRef]Object, served map[string]*pool) (changed bool) {
	pools := map[fleet.ObjectName]map[string]uint64{} // the snapshot of each pool
	for i := range m.Listeners {
		l := &m.Listeners[i]
		if pools[l.Gateway] == nil {
			pools[l.Gateway] = map[string]uint64{}
		}
		for _, a := range l.Addresses {
			if p := served[a.Pool]; p != nil {
				pools[l.Gateway][a.Pool] = p.snapshot.Generation
			}
		}
	}
	before := len(g)
	maps.DeleteFunc(g, func(name fleet.ObjectName, _ gatewayRollout) bool { return pools[name] == nil })
	changed = len(g) != before
	for name, now := range pools {
		last, ok := g[name]
		object := objects[gatewayRef(name)].ObjectVersion
		if ok && last.object == object && sameKeys(last.pools, now) {
			continue
		}
		g[name] = gatewayRollout{object: object, pools: now}
		changed = true
	}
	return changed
}

// servedGateways are all Gateways, by pool.
func (r *Rollout) servedGateways() map[string]map[fleet.ObjectName]ServedGateway {
	if r.served != nil {
		return r.served
	}
	r.served = map[string]map[fleet.ObjectName]ServedGateway{}
	for name, rollout := range r.gateways {
		for pool := range rollout.pools {
			if r.served[pool] == nil {
				r.served[pool] = map[fleet.ObjectName]ServedGateway{}
			}
			r.served[pool][name] = ServedGateway{rollout.object, rollout.complete}
		}
	}
	return r.served
}

// completeElsewhere reports whether another replica saw a Gateway complete, in all its pools.
func (r *Rollout) completeElsewhere(name fleet.ObjectName, rollout gatewayRollout) bool {
	return slices.ContainsFunc(r.replicas, func(p Replica) bool {
		for pool := range rollout.pools {
			if p.Answers[pool].Gateways[name] != (ServedGateway{rollout.object, true}) {
				return false
			}
		}
		return true
	})
}

func gatewayRef(name fleet.ObjectName) fleet.ObjectRef {
	return fleet.ObjectRef{Kind: envoy.GatewayKind, Name: name}
}

func sameKeys(a, b map[string]uint64) bool {
	return len(a) == len(b) && maps.EqualFunc(a, b, func(uint64, uint64) bool { return true })
}

// restore marks the Gateways complete that were programmed before this process
// started: edges need a moment to reconnect.
func (g gatewayRollouts) restore(before map[fleet.ObjectRef]ObjectVersion) {
	for name, rollout := range g {
		if object, ok := before[gatewayRef(name)]; ok && object == rollout.object {
			rollout.complete = true
			g[name] = rollout
		}
	}
}

// Progress returns how far each Gateway is, from what the edges of all replicas have
// answered. own is of this one. reconnecting: the process has just started, so a Gateway
// that was programmed before counts as such even without an edge.
func (r *Rollout) Progress(own Answers, reconnecting bool) map[fleet.ObjectName]GatewayProgress {
	out := make(map[fleet.ObjectName]GatewayProgress, len(r.gateways))
	edges := map[string][]counted{}
	for pool := range r.pools {
		edges[pool] = countedEdges(pool, own[pool], r.replicas)
	}
	for name, rollout := range r.gateways {
		progress := GatewayProgress{Generation: rollout.object.Generation}
		for pool := range rollout.pools {
			progress.add(pool, name, rollout.object, edges[pool])
		}
		slices.Sort(progress.Unserved)
		slices.Sort(progress.Refused)
		acked := progress.Connected > 0 && progress.Acked == progress.Connected
		if !rollout.complete && (acked || r.completeElsewhere(name, rollout)) {
			rollout.complete = true
			r.gateways[name], r.served = rollout, nil
		}
		switch {
		case acked:
		case rollout.complete && progress.Acked > 0:
			progress.Acked = progress.Connected
		case rollout.complete && reconnecting:
			progress.Connected, progress.Acked = 1, 1
		}
		out[name] = progress
	}
	return out
}

// add counts the edges of one pool. While another edge of the pool took the Gateway, those
// that refuse a part of it do not count.
func (g *GatewayProgress) add(pool string, name fleet.ObjectName, version ObjectVersion, edges []counted) {
	if len(edges) == 0 {
		g.Unserved = append(g.Unserved, pool)
		return
	}
	refusing, message := 0, ""
	for _, edge := range edges {
		published := edge.of.Gateways[name].Version == version // or its replica does not know this version yet
		at := slices.IndexFunc(edge.Refuses, func(refused RefusedGateway) bool { return refused.Gateway == name })
		if published && at >= 0 {
			refusing, message = refusing+1, max(message, edge.Refuses[at].Message)
			continue
		}
		g.Connected++
		if published && !edge.New && !slices.Contains(edge.Lacks, name) {
			g.Acked++
		}
	}
	if refusing == len(edges) {
		g.Refused = append(g.Refused, pool)
		g.Message = max(g.Message, message)
	}
}

// gatewayRefusals returns which edges have NACKed what they should have of which
// Gateway, with Envoy's message: by pool, Gateway and stream.
func (r *Rollout) gatewayRefusals(edges map[string][]EdgeProgress) map[string]map[fleet.ObjectRef]map[uint64]string {
	refusals := map[string]map[fleet.ObjectRef]map[uint64]string{}
	for name, connected := range edges {
		p := r.pools[name]
		if p == nil {
			continue
		}
		for _, g := range connected {
			e := p.edges[g.Stream]
			for _, n := range g.Nacked {
				if e == nil {
					continue
				}
				resource := p.resource(e, n.Resource)
				if resource == nil || resource.Version != n.Version || e.explains(resource) {
					continue
				}
				for _, gateway := range p.gatewaysOf(resource) {
					p.refusing(refusals, gateway)[g.Stream] = wordsAboutGateway(n)
				}
			}
		}
	}
	return refusals
}

func (p *pool) refusing(refusals map[string]map[fleet.ObjectRef]map[uint64]string, gateway fleet.ObjectRef) map[uint64]string {
	if refusals[p.name] == nil {
		refusals[p.name] = map[fleet.ObjectRef]map[uint64]string{}
	}
	if refusals[p.name][gateway] == nil {
		refusals[p.name][gateway] = map[uint64]string{}
	}
	return refusals[p.name][gateway]
}

// wordsAboutGateway is Envoy's message, unless it may quote routes.
func wordsAboutGateway(n ResourceNack) string {
	if t := n.Resource.Type(); t == "Listener" || t == "Secret" {
		return n.Message
	}
	return ""
}

// gatewaysOf returns the Gateways that a resource serves: those that it was made
// of, or else, for a cluster or a certificate, those of the resources that have a
// source in common with it.
func (p *pool) gatewaysOf(resource *envoy.Resource) []fleet.ObjectRef {
	gateways := map[fleet.ObjectRef]bool{}
	collect := func(refs []fleet.ObjectRef) {
		for _, ref := range refs {
			if ref.Kind == envoy.GatewayKind {
				gateways[ref] = true
			}
		}
	}
	if collect(resource.Sources); len(gateways) == 0 {
		for other := range resourcesIn(p.snapshot.Resources) {
			if slices.ContainsFunc(resource.Sources, func(ref fleet.ObjectRef) bool { return slices.Contains(other.Sources, ref) }) {
				collect(other.Sources)
			}
		}
	}
	return slices.SortedFunc(maps.Keys(gateways), fleet.ObjectRef.Compare)
}
