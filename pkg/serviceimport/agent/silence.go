package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

const (
	// missingTime is how long an object stays that the hub no longer lists, if its
	// deletion was not reported. A hub that came back without its memory has that
	// long to learn it again from the agents, whose informers may wait for half of it.
	missingTime = time.Minute
	// manyImports is how many imports a member must have so that more than half of
	// them missing counts as a loss of memory, and not as the end of these services.
	manyImports = 5
	// theImport is the name of the import among those of its slices.
	theImport = ""
)

// countInterval is how long a count of the missing imports counts: each of them asks.
const countInterval = time.Second

// silence remembers of each service what the hub reported as deleted, and what it
// lacks without such a report. A watch reports deletions; a list after a lost
// connection only lacks what is gone. Any goroutine may use it.
type silence struct {
	missingTime time.Duration // read-only

	mu       sync.Mutex
	services map[types.NamespacedName]*reports
}

// reports are about objects of one service: its slices by name, and theImport.
type reports struct {
	deleted map[string]bool
	missing map[string]time.Time // since when
}

func newSilence() *silence {
	return &silence{missingTime: missingTime, services: map[types.NamespacedName]*reports{}}
}

func (s *silence) of(service types.NamespacedName) *reports {
	if s.services[service] == nil {
		s.services[service] = &reports{deleted: map[string]bool{}, missing: map[string]time.Time{}}
	}
	return s.services[service]
}

// drop forgets a service of which there is nothing to remember.
func (s *silence) drop(service types.NamespacedName) {
	if r := s.services[service]; r != nil && len(r.deleted)+len(r.missing) == 0 {
		delete(s.services, service)
	}
}

// serves notes that the hub serves an object.
func (s *silence) serves(service types.NamespacedName, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(service)
	delete(r.deleted, name)
	delete(r.missing, name)
	s.drop(service)
}

// reports notes that the hub reported an object's deletion.
func (s *silence) reports(service types.NamespacedName, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(service).deleted[name] = true
}

// ended returns what was reported as deleted.
func (s *silence) ended(service types.NamespacedName) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.drop(service)
	return slices.Collect(maps.Keys(s.of(service).deleted))
}

// obeyed forgets deletions that are done in this cluster, too.
func (s *silence) obeyed(service types.NamespacedName, ended []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(service)
	for _, name := range ended {
		delete(r.deleted, name)
		delete(r.missing, name)
	}
	s.drop(service)
}

// keepsOnly forgets what was missing of a service and is no longer in this cluster: of
// slices that come and go there would be ever more.
func (s *silence) keepsOnly(service types.NamespacedName, stored []discoveryv1.EndpointSlice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.of(service).missing, func(name string, _ time.Time) bool {
		return !slices.ContainsFunc(stored, func(slice discoveryv1.EndpointSlice) bool { return slice.Name == name })
	})
	s.drop(service)
}

// removed forgets what was missing of a service of which this cluster has nothing.
func (s *silence) removed(service types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.of(service).missing)
	s.drop(service)
}

// left is how long an object still stays that the hub does not list.
func (s *silence) left(service types.NamespacedName, name string, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.of(service)
	if r.deleted[name] {
		return 0
	}
	if _, ok := r.missing[name]; !ok {
		r.missing[name] = now
	}
	return max(s.missingTime-now.Sub(r.missing[name]), 0)
}

// compare finds out what the hub wants of a service, and of what it is silent:
// of everything until it has listed everything once, and of objects that a later
// list lacks. A deletion that the hub reports is obeyed at once.
func (i *Importer) compare(ctx context.Context, key types.NamespacedName, f *facts) {
	f.ended = i.silence.ended(key)
	if !i.hub.Synced() {
		if imported(f.have) {
			f.wanted, f.kept = f.have, f.stored
		}
		return
	}
	f.wanted = i.hub.serviceImport(key)
	if f.wanted == nil {
		if f.again = i.staysFor(ctx, key, f.have); f.again > 0 {
			f.wanted, f.kept = f.have, f.stored
		}
		return
	}
	i.silence.keepsOnly(key, f.stored)
	f.served = i.hub.slicesOf(key)
	listed := map[string]bool{} // clusters
	for _, s := range f.served {
		listed[s.Labels[mcsv1beta1.LabelSourceCluster]] = true
	}
	for _, s := range f.stored {
		if cluster := s.Labels[mcsv1beta1.LabelSourceCluster]; listed[cluster] || cluster == string(i.cluster) {
			continue // one slice less is what a rollout makes; the others have its endpoints
		}
		if left := i.silence.left(key, s.Name, i.now()); left > 0 {
			f.kept = append(f.kept, s)
			if f.again == 0 || left < f.again {
				f.again = left
			}
		}
	}
}

// staysFor is how long an import stays that the hub does not serve. If most are
// missing, they stay until somebody deletes them. One that this member may not import
// does not stay.
func (i *Importer) staysFor(ctx context.Context, key types.NamespacedName, have *mcsv1beta1.ServiceImport) time.Duration {
	if !imported(have) {
		return 0
	}
	if slices.Contains(i.silence.ended(key), theImport) || i.hub.consent.refuses(ctx, key) {
		return 0
	}
	left := i.silence.left(key, theImport, i.now())
	if left > 0 || !i.mostAreMissing() {
		return left
	}
	i.reportOnce(have, "NotListed", condition.ImportNotListed(fleet.ServiceName(key)))
	return i.silence.missingTime
}

// mostAreMissing tells whether more than half of many imports are missing. A Service
// under Crossway's label is no import: who writes Services may make any number.
func (i *Importer) mostAreMissing() bool {
	i.missing.mu.Lock()
	defer i.missing.mu.Unlock()
	if now := i.now(); now.Sub(i.missing.countedAt) >= countInterval {
		i.missing.most, i.missing.countedAt = i.countMissing(), now
	}
	return i.missing.most
}

// missingCount is the last count of missing imports.
type missingCount struct {
	mu        sync.Mutex
	most      bool // guarded by mu: more than half of many
	countedAt time.Time
}

func (i *Importer) countMissing() (most bool) {
	all, missing := i.serviceImports(), 0
	for _, key := range all {
		if i.hub.serviceImport(key) == nil && !slices.Contains(i.silence.ended(key), theImport) {
			missing++
		}
	}
	return len(all) >= manyImports && 2*missing > len(all)
}
