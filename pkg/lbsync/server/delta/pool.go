package delta

import (
	"slices"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Pool is what the edges of one pool should have, and the streams to them.
type Pool struct {
	generation uint64
	kinds      [kinds]desiredKind
	// used are the assignments that the snapshot's clusters use. withdrawn are
	// those of them that UpdateLoadAssignments removed.
	used, withdrawn map[string]struct{}
	streams         map[*Stream]struct{}
	// nacks are those of closed streams, by node: an Envoy that reconnects would
	// ACK a bad secret when it is sent again. The next stream of the node replaces
	// them when it closes. remembered is how many they are.
	nacks      map[string]map[resourceKey]Nack
	remembered int
	// sizes is what ClusterSizes returned, nil after a change, and changes its version.
	sizes   map[string]int
	changes uint64
}

// ClusterSizes is how many bytes the load assignment of each cluster has. The map is not
// changed afterwards. changes differs where the map does.
func (p *Pool) ClusterSizes() (sizes map[string]int, changes uint64) {
	if p.sizes == nil {
		p.sizes = make(map[string]int, len(p.kinds[clusters].resources))
		for name, c := range p.kinds[clusters].resources {
			p.sizes[name] = len(p.kinds[assignments].resources[c.assignment].body())
		}
		p.changes++
	}
	return p.sizes, p.changes
}

// desiredKind is what a pool's edges should have of one kind. Until ready it is
// unknown, not empty.
type desiredKind struct {
	ready     bool
	resources map[string]encoded
	list      []Resource // of the last snapshot; nil for assignments
}

// replace takes the list of a snapshot and returns the names of resources that
// were added, changed or removed, in order. It is fast for the usual case: a list
// with the same names as the last one and few changes.
func (d *desiredKind) replace(list []Resource) (changed []string) {
	sameName := func(a, b Resource) bool { return a.Name == b.Name }
	if !d.ready || len(d.resources) != len(list) || !slices.EqualFunc(d.list, list, sameName) {
		next := make(map[string]encoded, len(list))
		for _, r := range list {
			next[r.Name] = encode(r)
		}
		changed = difference(d.resources, next)
		*d = desiredKind{ready: true, resources: next, list: list}
		return changed
	}
	for i, r := range list {
		if last := d.list[i]; r.Version != "" && r.Version == last.Version && r.Assignment == last.Assignment {
			continue
		}
		next := encode(r)
		if !d.resources[r.Name].equal(next) {
			changed = append(changed, r.Name)
		}
		d.resources[r.Name] = next
	}
	d.list = list
	slices.Sort(changed)
	return changed
}

// difference returns the names that were added, changed or removed, in order.
func difference(old, next map[string]encoded) []string {
	var names []string
	for name, r := range next {
		if !old[name].equal(r) {
			names = append(names, name)
		}
	}
	for name := range old {
		if _, kept := next[name]; !kept {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// resourceKey names a resource of any kind.
type resourceKey struct {
	kind Kind
	name string
}

// maxRememberedNacks bounds Pool.nacks: a node is a label that an edge chooses.
const maxRememberedNacks = 8192

// NewPool makes a Pool whose resources are not known yet.
func NewPool() *Pool {
	p := &Pool{withdrawn: map[string]struct{}{}, streams: map[*Stream]struct{}{}, nacks: map[string]map[resourceKey]Nack{}}
	for k := range p.kinds {
		p.kinds[k].resources = map[string]encoded{}
	}
	return p
}

// SetResources replaces everything but the load assignments. What changed, by
// version, becomes due on each stream. It returns whether the Progress of any
// stream changed.
func (p *Pool) SetResources(snapshot Snapshot) bool {
	p.sizes = nil
	first := !p.kinds[clusters].ready
	var changed [kinds][]string
	for k, list := range [kinds][]Resource{
		clusters: snapshot.Clusters, secrets: snapshot.Secrets,
		listeners: snapshot.Listeners, routes: snapshot.Routes,
	} {
		if Kind(k) != assignments && Kind(k) != runtimes {
			changed[k] = p.kinds[k].replace(list)
		}
	}
	p.generation = snapshot.Generation
	if first || len(changed[clusters]) > 0 {
		changed[assignments] = p.updateUsed()
	}
	changed[assignments] = append(changed[assignments], p.resolveWithdrawn()...)
	for s := range p.streams {
		s.setOverrides(snapshot.Overrides[s.ID])
		for k := range kinds {
			if first && k != assignments && k != runtimes {
				s.reconcileAll(k)
				continue
			}
			for _, name := range changed[k] {
				s.reconcile(k, name)
			}
		}
	}
	progress := false
	for s := range p.streams {
		progress = s.updateProgress() || progress
	}
	return progress
}

// SetRuntime replaces the runtime, for which edges ask before anything else.
func (p *Pool) SetRuntime(r Resource) {
	p.kinds[runtimes] = desiredKind{ready: true, resources: map[string]encoded{r.Name: encode(r)}}
	for s := range p.streams {
		s.reconcile(runtimes, r.Name)
	}
}

// updateUsed reads which assignments the clusters use, and returns those that
// they did not use before, in order.
func (p *Pool) updateUsed() (added []string) {
	used := make(map[string]struct{}, len(p.kinds[clusters].resources))
	for _, c := range p.kinds[clusters].resources {
		used[c.assignment] = struct{}{}
		if _, before := p.used[c.assignment]; !before {
			added = append(added, c.assignment)
		}
	}
	p.used = used
	slices.Sort(added)
	return slices.Compact(added)
}

// names is how many resources there are.
func (p *Pool) names() (n int) {
	for k := range p.kinds {
		n += len(p.kinds[k].resources)
	}
	return n
}

// desired is the resource that edges should have under a name. They should have
// an assignment only while a cluster of their snapshot uses it:
// UpdateLoadAssignments brings those of other pools of the region too, and an
// edge may ask for any name.
func (p *Pool) desired(k Kind, name string) (encoded, bool) {
	if k == assignments {
		if _, used := p.used[name]; !used {
			return encoded{}, false
		}
	}
	r, ok := p.kinds[k].resources[name]
	return r, ok
}

// resolveWithdrawn decides about the withdrawn assignments. One that the snapshot
// no longer uses is deleted. One that it still uses has no endpoints any more and
// becomes empty, which is the only way to tell Envoy so. It returns the latter, in
// order.
func (p *Pool) resolveWithdrawn() []string {
	var emptied []string
	for name := range p.withdrawn {
		if _, used := p.used[name]; used {
			p.kinds[assignments].resources[name] = emptyAssignment(name)
			emptied = append(emptied, name)
		} else {
			delete(p.kinds[assignments].resources, name)
		}
	}
	clear(p.withdrawn)
	slices.Sort(emptied)
	return emptied
}

func emptyAssignment(name string) encoded {
	// Marshalling a message of one string cannot fail.
	body, _ := anypb.New(&endpoint.ClusterLoadAssignment{ClusterName: name})
	return encode(Resource{Name: name, Version: "empty", Body: body})
}

// UpdateLoadAssignments adds or changes load assignments and withdraws others;
// the rest stays. It costs what changes, whatever the number of resources.
//
// A withdrawn assignment keeps its endpoints until the next SetResources: a
// snapshot that no longer uses it deletes it, one that still does empties it.
func (p *Pool) UpdateLoadAssignments(changed []Resource, removed []string) {
	p.sizes = nil
	all := &p.kinds[assignments]
	first := !all.ready
	all.ready = true
	for _, r := range changed {
		next := encode(r)
		delete(p.withdrawn, r.Name)
		if all.resources[r.Name].version() == next.version() {
			continue
		}
		all.resources[r.Name] = next
		if !first {
			for s := range p.streams {
				s.reconcile(assignments, r.Name)
			}
		}
	}
	for _, name := range removed {
		if _, used := p.used[name]; used {
			p.withdrawn[name] = struct{}{}
		} else {
			delete(all.resources, name)
		}
	}
	if first {
		for s := range p.streams {
			s.reconcileAll(assignments)
		}
	}
}

// Close ends a stream; it may be called twice. Its NACKs are kept for the next
// stream of the same process.
func (p *Pool) Close(s *Stream) {
	if _, open := p.streams[s]; !open {
		return
	}
	delete(p.streams, s)
	p.forgetNacks(s.node)
	nacks := s.currentNacks()
	if len(nacks) == 0 || len(nacks) > maxRememberedNacks {
		return
	}
	for node := range p.nacks {
		if p.remembered+len(nacks) <= maxRememberedNacks {
			break
		}
		p.forgetNacks(node)
	}
	p.nacks[s.node] = nacks
	p.remembered += len(nacks)
}

func (p *Pool) forgetNacks(node string) {
	p.remembered -= len(p.nacks[node])
	delete(p.nacks, node)
}

// spareNames is how many names that do not exist each stream may remember: some
// that an edge still has, or has asked for too early. The streams share them, so
// that invented names of many nodes cost no more than those of one.
func (p *Pool) spareNames() int { return max(minSpareNames, maxSpareNames/max(1, len(p.streams))) }

// untrackedSize is how many bytes the untracked names of one kind may have on each
// stream: an edge decides when they are sent.
func (p *Pool) untrackedSize() int {
	return max(minUntrackedSize, maxUntrackedSize/max(1, len(p.streams)))
}

const (
	minSpareNames, maxSpareNames = 1000, 20_000
	// nameSize is what a name costs beside its bytes.
	minUntrackedSize, maxUntrackedSize, nameSize = 256 << 10, 16 << 20, 16
	// maxNameLength is longer than any name that is made for a resource: a
	// Gateway's namespace, name and port, its chain and its host.
	maxNameLength = 1024
	// maxVersionLength is longer than the version of a load assignment of some
	// hundred clusters, and maxOldVersionLength than that of any other resource.
	maxVersionLength, maxOldVersionLength = 16 << 10, 256
)
