package server

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// pool is what the edges of one pool should have, and the streams to them.
type pool struct {
	name string

	mu sync.Mutex // guards all below and the state of every stream in streams

	generation uint64
	kinds      [kinds]wanted
	// used are the assignments that the snapshot's clusters use; released are
	// those that UpdateLoadAssignments took back while they were used.
	used, released map[string]struct{}
	streams        map[*stream]struct{}
	// refusals outlive a stream: an Envoy that comes back would ACK a bad secret
	// when it is sent again. By node, forgotten when its process is a new one.
	refusals map[string]map[ref]Nack
}

// wanted is one kind's part. Until ready it is unknown, not empty.
type wanted struct {
	ready     bool
	resources map[string]resource
	listed    []Resource // by the last snapshot; nil for assignments
}

// replace takes a snapshot's list and names, in order, what was added, changed
// or removed. Most lists have the names of the last one, and few changes.
func (w *wanted) replace(list []Resource) (changed []string) {
	same := func(a, b Resource) bool { return a.Name == b.Name }
	if !w.ready || len(w.resources) != len(list) || !slices.EqualFunc(w.listed, list, same) {
		next := make(map[string]resource, len(list))
		for _, r := range list {
			next[r.Name] = prepare(r)
		}
		changed = difference(w.resources, next)
		*w = wanted{ready: true, resources: next, listed: list}
		return changed
	}
	for i, r := range list {
		if last := w.listed[i]; r.Version != "" && r.Version == last.Version && r.Assignment == last.Assignment {
			continue
		}
		next := prepare(r)
		if !w.resources[r.Name].same(next) {
			changed = append(changed, r.Name)
		}
		w.resources[r.Name] = next
	}
	w.listed = list
	slices.Sort(changed)
	return changed
}

type ref struct {
	kind kind
	name string
}

// maxRememberedNodes bounds pool.refusals: a node is a label that an edge
// chooses.
const maxRememberedNodes = 1024

func newPool(name string) *pool {
	p := &pool{
		name: name, released: map[string]struct{}{}, streams: map[*stream]struct{}{}, refusals: map[string]map[ref]Nack{},
	}
	for k := range p.kinds {
		p.kinds[k].resources = map[string]resource{}
	}
	return p
}

// setResources replaces the snapshot and tells whether a stream has it already.
func (p *pool) setResources(snapshot Snapshot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.kinds[clusters].ready
	var changed [kinds][]string
	for k, list := range [kinds][]Resource{
		clusters: snapshot.Clusters, secrets: snapshot.Secrets,
		listeners: snapshot.Listeners, routes: snapshot.Routes, scopes: snapshot.ScopedRoutes,
	} {
		if kind(k) != assignments {
			changed[k] = p.kinds[k].replace(list)
		}
	}
	p.generation = snapshot.Generation
	if first || len(changed[clusters]) > 0 {
		changed[assignments] = p.use()
	}
	changed[assignments] = append(changed[assignments], p.settleReleased()...)
	for s := range p.streams {
		for k := range kinds {
			if first && k != assignments {
				s.reviewAll(k)
				continue
			}
			for _, name := range changed[k] {
				s.review(k, name)
			}
		}
		s.wake()
	}
	return p.settle()
}

// use notes which assignments the clusters use now, and names those that they
// did not use before, in order.
func (p *pool) use() (newly []string) {
	used := make(map[string]struct{}, len(p.kinds[clusters].resources))
	for _, c := range p.kinds[clusters].resources {
		used[c.assignment] = struct{}{}
		if _, was := p.used[c.assignment]; !was {
			newly = append(newly, c.assignment)
		}
	}
	p.used = used
	slices.Sort(newly)
	return slices.Compact(newly)
}

// wanted is the resource that edges should have under a name. An assignment is
// theirs only while a cluster of their snapshot uses it: UpdateLoadAssignments brings
// those of other places too, and an edge may ask for any name.
func (p *pool) wanted(k kind, name string) (resource, bool) {
	if k == assignments {
		if _, used := p.used[name]; !used {
			return resource{}, false
		}
	}
	r, wanted := p.kinds[k].resources[name]
	return r, wanted
}

// difference names, in order, what was added, changed or removed.
func difference(old, next map[string]resource) []string {
	var names []string
	for name, r := range next {
		if !old[name].same(r) {
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

// settleReleased decides about the assignments that were taken back: the
// snapshot no longer uses one, then it is forgotten; or it does, then its
// endpoints are gone, and only an empty assignment tells Envoy so.
func (p *pool) settleReleased() []string {
	var emptied []string
	for name := range p.released {
		if _, used := p.used[name]; used {
			p.kinds[assignments].resources[name] = emptyAssignment(name)
			emptied = append(emptied, name)
		} else {
			delete(p.kinds[assignments].resources, name)
		}
	}
	clear(p.released)
	return emptied
}

func emptyAssignment(name string) resource {
	// Marshalling a message of one string cannot fail.
	body, _ := anypb.New(&endpoint.ClusterLoadAssignment{ClusterName: name})
	return prepare(Resource{Name: name, Version: "empty", Body: body})
}

// updateLoadAssignments costs what changes, whatever the number of resources.
func (p *pool) updateLoadAssignments(changed []Resource, removed []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := &p.kinds[assignments]
	first := !all.ready
	all.ready = true
	for _, r := range changed {
		next := prepare(r)
		delete(p.released, r.Name)
		if all.resources[r.Name].version() == next.version() {
			continue
		}
		all.resources[r.Name] = next
		if !first {
			for s := range p.streams {
				s.review(assignments, r.Name)
			}
		}
	}
	for _, name := range removed {
		if _, used := p.used[name]; used {
			p.released[name] = struct{}{}
		} else {
			delete(all.resources, name)
		}
	}
	for s := range p.streams {
		if first {
			s.reviewAll(assignments)
		}
		s.wake()
	}
}

// settle notes which streams have the snapshot now, and tells whether any is new.
func (p *pool) settle() bool {
	news := false
	for s := range p.streams {
		news = s.settle() || news
	}
	return news
}

func (p *pool) attach(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams[s] = struct{}{}
}

func (p *pool) detach(s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, s)
	refusals := s.refusals()
	if len(refusals) == 0 {
		delete(p.refusals, s.edge.Node)
		return
	}
	for node := range p.refusals {
		if len(p.refusals) < maxRememberedNodes {
			break
		}
		delete(p.refusals, node)
	}
	p.refusals[s.edge.Node] = refusals
}

// refusedBy is what the node refused on earlier streams, of which one may not be
// known to be dead yet.
func (p *pool) refusedBy(s *stream) map[ref]Nack {
	found := maps.Clone(p.refusals[s.edge.Node])
	for other := range p.streams {
		if other != s && other.edge.Node == s.edge.Node {
			if found == nil {
				found = map[ref]Nack{}
			}
			maps.Copy(found, other.refusals())
		}
	}
	return found
}

// applied is in the order in which the streams were opened.
func (p *pool) applied() []State {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make([]State, 0, len(p.streams))
	for s := range p.streams {
		state := State{Edge: s.edge, Generation: s.generation, Answered: s.answered}
		for at, refusal := range s.refusals() {
			if p.kinds[at.kind].resources[at.name].version() == refusal.Version {
				state.Nacks = append(state.Nacks, refusal)
			}
		}
		slices.SortFunc(state.Nacks, func(a, b Nack) int { return strings.Compare(a.TypeURL+a.Name, b.TypeURL+b.Name) })
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.Edge.Stream, b.Edge.Stream) })
	return states
}
