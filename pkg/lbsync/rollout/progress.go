package rollout

import (
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// EdgeProgress says how far one connected edge is with its pool's snapshots.
type EdgeProgress struct {
	// Answered is the Generation of the newest snapshot of which the edge has
	// ACKed or NACKed everything; 0: none yet.
	Answered uint64
	// Nacked are the resources of the current snapshot that it has NACKed.
	Nacked []ResourceID
}

// GatewayProgress says how far the edges of a Gateway's pools are.
type GatewayProgress struct {
	Generation int64 // metadata.generation of the Gateway that Acked is about
	Connected  int   // edges that are connected
	Acked      int   // of those, edges that have ACKed all of the Gateway at Generation
	// Unserved are the EdgePools in which the Gateway has an address and no edge
	// is connected, sorted.
	Unserved []string
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
// another version or other pools than before.
func (g gatewayRollouts) published(m *model.Model, objects map[fleet.ObjectRef]ObjectVersion, snapshots map[string]Snapshot) {
	pools := map[fleet.ObjectName]map[string]uint64{}
	for i := range m.Listeners {
		l := &m.Listeners[i]
		if pools[l.Gateway] == nil {
			pools[l.Gateway] = map[string]uint64{}
		}
		for _, a := range l.Addresses {
			pools[l.Gateway][a.Pool] = snapshots[a.Pool].Generation
		}
	}
	maps.DeleteFunc(g, func(name fleet.ObjectName, _ gatewayRollout) bool { return pools[name] == nil })
	for name, served := range pools {
		last, ok := g[name]
		object := objects[gatewayRef(name)]
		if ok && last.object == object && sameKeys(last.pools, served) {
			continue
		}
		g[name] = gatewayRollout{object: object, pools: served}
	}
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

// Progress returns how far each Gateway is, from the connected edges of each
// pool. reconnecting: the process has just started, so a Gateway that was
// programmed before counts as such even without an edge.
func (r *Rollout) Progress(edges map[string][]EdgeProgress, reconnecting bool) map[fleet.ObjectName]GatewayProgress {
	out := make(map[fleet.ObjectName]GatewayProgress, len(r.gateways))
	sources := r.nackedSources(edges)
	for name, rollout := range r.gateways {
		nacked := func(id ResourceID) bool { return slices.Contains(sources[id], gatewayRef(name)) }
		progress := GatewayProgress{Generation: rollout.object.Generation}
		for pool, since := range rollout.pools {
			if len(edges[pool]) == 0 {
				progress.Unserved = append(progress.Unserved, pool)
			}
			for _, edge := range edges[pool] {
				progress.Connected++
				if edge.Answered >= since && !slices.ContainsFunc(edge.Nacked, nacked) {
					progress.Acked++
				}
			}
		}
		slices.Sort(progress.Unserved)
		switch {
		case progress.Connected > 0 && progress.Acked == progress.Connected:
			rollout.complete = true
			r.gateways[name] = rollout
		case rollout.complete && progress.Acked > 0:
			progress.Acked = progress.Connected
		case rollout.complete && reconnecting:
			progress.Connected, progress.Acked = 1, 1
		}
		out[name] = progress
	}
	return out
}

// nackedSources returns what each resource that an edge has NACKed was made of:
// a listener, a RouteConfiguration or a certificate counts for its Gateway. The same
// resource is made of the same Gateway in every pool.
func (r *Rollout) nackedSources(edges map[string][]EdgeProgress) map[ResourceID][]fleet.ObjectRef {
	sources := map[ResourceID][]fleet.ObjectRef{}
	for pool, connected := range edges {
		wanted := map[ResourceID]bool{}
		for _, edge := range connected {
			for _, id := range edge.Nacked {
				wanted[id] = true
			}
		}
		if len(wanted) == 0 {
			continue
		}
		for resource := range resourcesIn(r.pools[pool].Resources) {
			if id := idOf(resource); wanted[id] {
				sources[id] = resource.Sources
			}
		}
	}
	return sources
}
