package memberapi

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

// SliceKey names a pushed slice on the hub.
type SliceKey = fleet.ObjectName

// Changes are what changed of a State's input.
type Changes struct {
	// Members are all MemberClusters; nil: they are the same as before.
	Members *[]v1alpha1.MemberCluster
	// Services are merged exports; nil: no member exports the service.
	Services map[fleet.ServiceName]*v1alpha1.FleetServiceSpec
	// Slices are pushed slices; nil: gone.
	Slices map[SliceKey]*discoveryv1.EndpointSlice
	// Lost are services of which objects went that nobody saw being deleted; AllLost: of
	// any service. What that takes from members is no deletion to be told: they list
	// again, and see what is missing.
	Lost    sets.Set[fleet.ServiceName]
	AllLost bool
	// Seen is the last resourceVersion among the changed slices, gone ones too; 0: none.
	Seen uint64
}

// Touched is what Changes changed: whom to wake.
type Touched struct {
	// Readers: of some members there is another Reader, or none.
	Readers bool
	// Namespaces have objects that changed, by the name of their resource.
	Namespaces map[string]sets.Set[string]
}

// State is what all members see. Objects that it was given stay the caller's, and
// nobody changes them.
type State struct {
	Imports, Slices *Log

	versions *versions
	reserved []netip.Prefix
	readers  map[fleet.ClusterName]*Reader
	sources  map[fleet.ClusterName]*source
	// namespaces are those of the Logs.
	namespaces     sets.Set[string]
	namespacesLeft int // when they were last counted

	services  map[fleet.ServiceName]*v1alpha1.FleetServiceSpec
	pushed    map[SliceKey]*pushedSlice
	byService map[fleet.ServiceName]sets.Set[SliceKey]
	byCluster map[fleet.ClusterName]sets.Set[SliceKey]
	// stale are the slices to be looked at again, recount the members whose endpoints are.
	stale   sets.Set[SliceKey]
	recount sets.Set[fleet.ClusterName]
	// lost and allLost are those of the last Changes.
	lost    sets.Set[fleet.ServiceName]
	allLost bool
}

// New makes an empty State. start is its first version (Start); reserved are the
// hub's own ranges, which no member may announce.
func New(start uint64, reserved []netip.Prefix) *State {
	v := &versions{first: start, last: start}
	return &State{
		Imports: newLog(ServiceImports, v), Slices: newLog(EndpointSlices, v), versions: v, reserved: reserved,
		readers: map[fleet.ClusterName]*Reader{}, sources: map[fleet.ClusterName]*source{}, namespaces: sets.New[string](),
		services: map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{}, pushed: map[SliceKey]*pushedSlice{},
		byService: map[fleet.ServiceName]sets.Set[SliceKey]{}, byCluster: map[fleet.ClusterName]sets.Set[SliceKey]{},
		stale: sets.New[SliceKey](), recount: sets.New[fleet.ClusterName](),
	}
}

// Reader returns what an accepted member sees; nil: it is none.
func (s *State) Reader(cluster fleet.ClusterName) *Reader { return s.readers[cluster] }

// Apply takes changes in. A slice costs itself, a service its slices, and a
// MemberCluster the slices that it pushed.
func (s *State) Apply(c Changes, now time.Time) Touched {
	var touched Touched
	s.lost, s.allLost = c.Lost, c.AllLost
	s.versions.seen = max(s.versions.seen, c.Seen)
	if c.Members != nil {
		s.setMembers(*c.Members, &touched)
	}
	for _, name := range inOrder(c.Services) {
		s.setService(name, c.Services[name], now, &touched)
	}
	for _, key := range inOrder(c.Slices) {
		s.setSlice(key, c.Slices[key], now, &touched)
	}
	for cluster := range s.recount {
		s.count(cluster)
	}
	clear(s.recount)
	for _, key := range inOrder(s.stale) {
		s.show(s.pushed[key], now, &touched)
	}
	clear(s.stale)
	s.prune(now)
	return touched
}

func inOrder[V any](m map[fleet.ObjectName]V) []fleet.ObjectName {
	return slices.SortedFunc(maps.Keys(m), fleet.ObjectName.Compare)
}

// lookAt marks slices as stale.
func (s *State) lookAt(keys sets.Set[SliceKey]) {
	for key := range keys {
		s.stale.Insert(key)
	}
}

// prune forgets old deletions, and namespaces of which nothing is left.
func (s *State) prune(now time.Time) {
	s.Imports.prune(now)
	s.Slices.prune(now)
	if len(s.namespaces) <= 2*s.namespacesLeft+100 {
		return
	}
	left := sets.New[string]()
	for _, l := range []*Log{s.Imports, s.Slices} {
		for name := range l.objects {
			left.Insert(name.Namespace)
		}
	}
	s.namespaces, s.namespacesLeft = left, len(left)
	for _, r := range s.readers {
		maps.DeleteFunc(r.sees, func(namespace string, _ bool) bool { return !left.Has(namespace) })
	}
}

// touch notes that an object of a namespace changed.
func (s *State) touch(l *Log, namespace string, touched *Touched) {
	if touched.Namespaces == nil {
		touched.Namespaces = map[string]sets.Set[string]{}
	}
	if touched.Namespaces[l.Resource.Name] == nil {
		touched.Namespaces[l.Resource.Name] = sets.New[string]()
	}
	touched.Namespaces[l.Resource.Name].Insert(namespace)
}

// set writes an object of a Log.
func (s *State) set(l *Log, name fleet.ObjectName, encode func() content, identity content, touched *Touched) {
	if !s.namespaces.Has(name.Namespace) {
		s.namespaces.Insert(name.Namespace)
		for _, r := range s.readers {
			r.add(name.Namespace)
		}
	}
	if l.set(name, encode, identity) {
		s.touch(l, name.Namespace, touched)
	}
}

// remove deletes an object of a Log, which is of a service.
func (s *State) remove(l *Log, name fleet.ObjectName, service fleet.ServiceName, now time.Time, touched *Touched) {
	if !l.remove(name, now) {
		return
	}
	if s.allLost || s.lost.Has(service) {
		l.forget(name)
	}
	s.touch(l, name.Namespace, touched)
}

func (s *State) setService(name fleet.ServiceName, spec *v1alpha1.FleetServiceSpec, now time.Time, touched *Touched) {
	s.lookAt(s.byService[name])
	if spec == nil {
		delete(s.services, name)
		s.remove(s.Imports, name, name, now, touched)
		return
	}
	s.services[name] = spec
	identity := &mcsv1beta1.ServiceImport{TypeMeta: ServiceImports.typeMeta()}
	identity.Namespace, identity.Name = name.Namespace, name.Name
	s.set(s.Imports, name, func() content { return importOf(spec) }, ServiceImports.contentOf(identity), touched)
}

// importOf is a service's ServiceImport as members see it.
func importOf(spec *v1alpha1.FleetServiceSpec) content {
	shown := serviceimport.Project(v1alpha1.FleetService{Spec: *spec}).Import
	shown.TypeMeta = ServiceImports.typeMeta()
	shown.Status.EndpointSliceObjects = "" // which each member knows for itself
	delete(shown.Annotations, v1alpha1.AnnotationRegion)
	return ServiceImports.contentOf(&shown)
}

// Version is the last version.
func (s *State) Version() uint64 { return s.versions.last }

// Seen is what the replica has seen of the hub's API server (Position).
func (s *State) Seen() uint64 { return s.versions.seen }

// ChangesSince is the number of versions after one.
func (s *State) ChangesSince(version uint64) uint64 {
	return (s.versions.last - max(version, s.versions.first)) / versionStep
}
