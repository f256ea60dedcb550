package memberapi

import (
	"cmp"
	"slices"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// versionStep is the distance of two versions. The rest of a version by it is the
	// replica's own, so that no replica takes another's version for its own.
	versionStep = 1 << 20
	// deletedAge is how long a deletion is remembered. A reader that has not read it
	// by then lists again. Bookmarks bring every other reader further in less time.
	deletedAge = 5 * time.Minute
	// maxDeleted is how many deletions a Log remembers.
	maxDeleted = 10_000
	// maxEncoded is how many bytes of encoded objects a Log keeps: those that changed
	// last. Many readers read them at the same time, and all there are when another
	// replica has ended: 10,000 slices of 10 endpoints have 13 MB, and to encode them
	// for each reader costs nine times as much as to copy them.
	maxEncoded = 32 << 20
)

// Start is the first version of a replica: later than those of replicas that
// started before, and with a random part of its own.
func Start(now time.Time, random uint32) uint64 {
	return uint64(now.UnixMilli())*versionStep + uint64(random)%versionStep
}

// versions are those of one State.
type versions struct {
	first, last uint64
	seen        uint64 // of the last Position
}

func (v *versions) next() uint64 {
	v.last += versionStep
	return v.last
}

// has says whether a version is one of this replica.
func (v *versions) has(version uint64) bool {
	return version >= v.first && version <= v.last && (version-v.first)%versionStep == 0
}

// Object is one state of one object. It does not change.
type Object struct {
	Name     fleet.ObjectName
	Position // of its last change
	// Deleted: the object is gone.
	Deleted bool

	content   content // empty: encode returns it
	encode    func() content
	identity  content // what a deletion says of it
	size      int
	created   uint64
	deletedAt time.Time
}

// encoded is the object's content.
func (o *Object) encoded() content {
	if o.content.rest == nil {
		return o.encode()
	}
	return o.content
}

// Log is all objects of one kind, and the order of their last changes.
type Log struct {
	Resource Resource
	head     string

	versions *versions
	objects  map[fleet.ObjectName]*Object // with deleted ones
	names    []fleet.ObjectName           // of those that are not deleted, sorted
	order    []change                     // by version
	deleted  int
	kept     []change // whose content is kept, by version
	keptSize int
	maxKept  int
	// floor is the last version whose deletion is forgotten.
	floor uint64
}

// change is one change of an object. It is of no interest if the object has
// another version by now.
type change struct {
	version uint64
	name    fleet.ObjectName
	size    int
}

func newLog(resource Resource, v *versions) *Log {
	return &Log{Resource: resource, head: resource.head(), versions: v, objects: map[fleet.ObjectName]*Object{}, maxKept: maxEncoded}
}

// Len is the number of objects.
func (l *Log) Len() int { return len(l.names) }

// Get returns an object; nil: there is none.
func (l *Log) Get(name fleet.ObjectName) *Object {
	if o := l.objects[name]; o != nil && !o.Deleted {
		return o
	}
	return nil
}

// set writes an object. encode returns its content, and always the same. It says
// whether that changes anything.
func (l *Log) set(name fleet.ObjectName, encode func() content, identity content) (changed bool) {
	old := l.objects[name]
	next := &Object{Name: name, content: encode(), encode: encode, identity: identity}
	next.size = len(next.content.rest)
	switch {
	case old == nil:
		l.insert(name)
	case old.Deleted:
		l.insert(name)
		l.deleted--
	case old.encoded().equal(next.content):
		same := *old
		same.encode = encode // or the Log would hold what the old one was made from
		l.objects[name] = &same
		return false
	default:
		next.created = old.created
	}
	l.append(next)
	return true
}

// remove deletes an object.
func (l *Log) remove(name fleet.ObjectName, now time.Time) (changed bool) {
	old := l.Get(name)
	if old == nil {
		return false
	}
	if at, found := slices.BinarySearchFunc(l.names, name, fleet.ObjectName.Compare); found {
		l.names = slices.Delete(l.names, at, at+1)
	}
	l.deleted++
	l.append(&Object{Name: name, identity: old.identity, created: old.created, Deleted: true, deletedAt: now})
	return true
}

func (l *Log) insert(name fleet.ObjectName) {
	at, _ := slices.BinarySearchFunc(l.names, name, fleet.ObjectName.Compare)
	l.names = slices.Insert(l.names, at, name)
}

// append makes an object the last that changed.
func (l *Log) append(o *Object) {
	o.Position = Position{l.versions.next(), l.versions.seen}
	if o.created == 0 {
		o.created = o.Version
	}
	l.objects[o.Name] = o
	if len(l.order) > 2*len(l.objects)+64 {
		l.order = slices.DeleteFunc(l.order, func(c change) bool { return l.stale(c) })
	}
	l.order = append(l.order, change{o.Version, o.Name, o.size})
	l.keep(l.order[len(l.order)-1])
}

// keep forgets the content of objects that changed some time ago. Whoever has the
// object from a Watch reads it outside of any lock, so it is replaced.
func (l *Log) keep(last change) {
	l.kept, l.keptSize = append(l.kept, last), l.keptSize+last.size
	for l.keptSize > l.maxKept {
		c := l.kept[0]
		l.kept, l.keptSize = l.kept[1:], l.keptSize-c.size
		if !l.stale(c) {
			light := *l.objects[c.name]
			light.content = content{}
			l.objects[c.name] = &light
		}
	}
}

func (l *Log) stale(c change) bool {
	o := l.objects[c.name]
	return o == nil || o.Version != c.version
}

// prune forgets old deletions, and the oldest of too many.
func (l *Log) prune(now time.Time) {
	if l.deleted == 0 {
		return
	}
	for _, c := range l.order {
		o := l.objects[c.name]
		if l.stale(c) || !o.Deleted {
			continue
		}
		if l.deleted <= maxDeleted && now.Sub(o.deletedAt) < deletedAge {
			return
		}
		delete(l.objects, c.name)
		l.deleted--
		l.floor = c.version
	}
}

// forget forgets the deletion of an object, so that no Watch tells it.
func (l *Log) forget(name fleet.ObjectName) {
	l.floor = l.objects[name].Version
	l.deleted--
	delete(l.objects, name)
}

// after finds the first change after a version.
func (l *Log) after(version uint64) int {
	at, found := slices.BinarySearchFunc(l.order, version, func(c change, v uint64) int { return cmp.Compare(c.version, v) })
	if found {
		at++
	}
	return at
}
