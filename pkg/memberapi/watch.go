package memberapi

import (
	"errors"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
)

// limit bounds what Next returns at once, and how many objects it looks at: so long
// it keeps others from the State.
type limit struct{ events, bytes, scanned int }

var defaultLimit = limit{500, 64 << 10, 10_000}

func (l limit) reached(events, bytes, scanned int) bool {
	return events >= l.events || bytes >= l.bytes || scanned >= l.scanned
}

// Errors of a Watch, which ends with them.
var (
	// ErrExpired: changes since the Watch's version are not known any more, or what
	// its reader sees has changed. The reader lists again.
	ErrExpired = errors.New("expired")
	// ErrRevoked: the reader is no accepted member any more, or has another credential.
	ErrRevoked = errors.New("revoked")
)

// EventType is what happened to an object.
type EventType uint8

const (
	Added EventType = iota
	Modified
	Deleted
	// Listed follows the last of the initial objects. Its Object is nil.
	Listed
)

// Event is one change of one object.
type Event struct {
	Type   EventType
	Object *Object
}

// Watch is how far one reader has read a Log. Its size does not depend on what is
// left to read.
type Watch struct {
	reader *Reader
	log    *Log
	// namespace is the only one to be read; empty: all.
	namespace string
	listing   bool
	leaving   bool             // the reader has changed
	last      fleet.ObjectName // while listing or leaving: the last name that was read
	position  uint64           // all changes up to this version were read, or will be listed
	seen      uint64           // what the replica had seen by then
	// caughtUp is the last position at which nothing was left to read. What was
	// created later is Added, even if that is the second Event of it.
	caughtUp uint64
	limit    limit
}

// NewWatch is a Watch that begins with all objects that its reader sees: an Added
// Event for each, and Listed.
func NewWatch(reader *Reader, log *Log, namespace string) *Watch {
	return &Watch{reader: reader, log: log, namespace: namespace, listing: true, position: log.versions.last, seen: log.versions.seen, caughtUp: log.versions.last, limit: defaultLimit}
}

// ResumedWatch is a Watch of the changes since a version.
func ResumedWatch(reader *Reader, log *Log, namespace string, version uint64) *Watch {
	return &Watch{reader: reader, log: log, namespace: namespace, position: version, caughtUp: version, limit: defaultLimit}
}

// Position is where a reader of what was returned may go on.
func (w *Watch) Position() Position { return Position{w.position, w.seen} }

// Next returns what comes next; more: there is more already. It fails if the
// Watch's reader may not read on.
func (w *Watch) Next(s *State) (events []Event, more bool, err error) {
	now := s.readers[w.reader.Cluster]
	switch {
	case now == nil || now.member.UID != w.reader.member.UID || now.User != w.reader.User:
		return nil, false, ErrRevoked
	case now != w.reader:
		if events := w.leave(now); len(events) > 0 {
			return events, true, nil
		}
		return nil, false, ErrExpired
	case !w.log.versions.has(w.position) || w.position < w.reader.since || w.position < w.log.floor:
		return nil, false, ErrExpired
	case w.listing:
		return w.list(), true, nil
	}
	events, more = w.changes()
	return events, more, nil
}

// leave returns the next of the objects that the reader saw and does not see any
// more, as deleted: they may have changed since it read them.
func (w *Watch) leave(now *Reader) (events []Event) {
	if !w.leaving {
		w.leaving, w.last = true, fleet.ObjectName{}
	}
	at, found := slices.BinarySearchFunc(w.log.names, w.last, fleet.ObjectName.Compare)
	if found {
		at++
	}
	for ; at < len(w.log.names) && len(events) < w.limit.events; at++ {
		o := w.log.objects[w.log.names[at]]
		w.last = o.Name
		if w.sees(o) && o.created <= w.position && !now.Sees(o.Name.Namespace) { // newer ones are not the reader's to know
			events = append(events, Event{Deleted, o})
		}
	}
	return events
}

// list returns the next of the initial objects, in the order of their names.
func (w *Watch) list() (events []Event) {
	names := w.log.names
	if w.namespace != "" && w.last.Namespace == "" {
		w.last.Namespace = w.namespace
	}
	at, found := slices.BinarySearchFunc(names, w.last, fleet.ObjectName.Compare)
	if found {
		at++
	}
	size := 0
	for n := 0; at < len(names); n++ {
		if w.limit.reached(len(events), size, n) {
			return events
		}
		o := w.log.objects[names[at]]
		at++
		w.last = o.Name
		if w.sees(o) && o.created <= w.position { // newer ones follow
			events = append(events, Event{Added, o})
			size += o.size
		} else if w.namespace != "" && o.Name.Namespace != w.namespace {
			break
		}
	}
	w.listing = false
	return append(events, Event{Type: Listed})
}

// changes returns the next objects that changed, each as it is now.
func (w *Watch) changes() (events []Event, more bool) {
	size := 0
	for n, c := range w.log.order[w.log.after(w.position):] {
		if w.limit.reached(len(events), size, n) {
			return events, true
		}
		w.position = c.version
		o := w.log.objects[c.name]
		if w.log.stale(c) || !w.sees(o) {
			continue
		}
		e := Event{Modified, o}
		switch {
		case o.Deleted: // whether or not the reader ever had it
			e.Type = Deleted
		case o.created > w.caughtUp:
			e.Type = Added
		}
		events = append(events, e)
		size += o.size
	}
	w.position, w.caughtUp, w.seen = w.log.versions.last, w.log.versions.last, w.log.versions.seen
	return events, false
}

func (w *Watch) sees(o *Object) bool {
	return w.reader.sees[o.Name.Namespace] && (w.namespace == "" || w.namespace == o.Name.Namespace)
}

// String is the event's type in the protocol.
func (t EventType) String() string {
	return [...]string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}[t]
}
