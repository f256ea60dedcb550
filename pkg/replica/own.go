package replica

import (
	"bytes"
	"maps"
	"slices"
)

// Own has the maps of this replica.
type Own struct {
	store
	followers map[*Follower]struct{}
}

// NewOwn returns empty maps.
func NewOwn() *Own { return &Own{store: newStore(1), followers: map[*Follower]struct{}{}} }

// Set makes data the value of the key of a topic. An error says which limit it is beyond:
// the key's value is unknown to others then. One key too many they do not hear of at all.
func (o *Own) Set(topic, key string, data []byte) error {
	at := address{topic, key}
	earlier, was := o.values[at]
	if was && !earlier.unknown && bytes.Equal(earlier.data, data) {
		return nil
	}
	next, fault := value{data: data}, o.fault(at, data)
	if fault != nil {
		if earlier.unknown || o.keyFault(at) != nil {
			return fault
		}
		next = value{unknown: true}
	}
	o.put(at, next)
	o.tell(at)
	return fault
}

// Delete removes a key.
func (o *Own) Delete(topic, key string) {
	if at := (address{topic, key}); o.delete(at) {
		o.tell(at)
	}
}

// Sizes are the bytes of the values of each topic.
func (o *Own) Sizes() map[string]int {
	out := make(map[string]int, len(o.topics))
	for topic, size := range o.topics {
		out[topic] = size.bytes
	}
	return out
}

func (o *Own) tell(at address) {
	for f := range o.followers {
		f.add(at)
	}
}

// Follow returns a new Follower, which lacks everything.
func (o *Own) Follow() *Follower {
	f := &Follower{own: o, waiting: map[address]struct{}{}, initial: len(o.values)}
	for _, at := range slices.SortedFunc(maps.Keys(o.values), address.compare) {
		f.add(at)
	}
	o.followers[f] = struct{}{}
	return f
}

// Follower is what one reader of the maps lacks: each key once, the longest waiting first.
type Follower struct {
	own     *Own
	queue   []address
	waiting map[address]struct{}
	initial int // keys of the start that were not sent yet; below 0: Whole was said
}

func (f *Follower) add(at address) {
	if _, waits := f.waiting[at]; !waits {
		f.waiting[at] = struct{}{}
		f.queue = append(f.queue, at)
	}
}

// Lacks says whether there is something to send.
func (f *Follower) Lacks() bool { return len(f.queue) > 0 || f.initial >= 0 }

// End forgets the Follower.
func (f *Follower) End() { delete(f.own.followers, f) }

// Next returns what to send: at most about limit bytes, or one value. whole is true once,
// with the last of what there was when the Follower began.
func (f *Follower) Next(limit int) (updates []Update, whole bool) {
	size, n := 0, 0
	for n < len(f.queue) && (n == 0 || size < limit) {
		at := f.queue[n]
		v, is := f.own.values[at]
		updates = append(updates, Update{Topic: at.topic, Key: at.key, Value: v.data, Deleted: !is, Unknown: v.unknown})
		size += updates[n].size()
		delete(f.waiting, at)
		n++
	}
	if f.queue = f.queue[n:]; len(f.queue) == 0 {
		f.queue = nil // lets go of what was sent
	}
	if f.initial >= 0 {
		if f.initial -= n; f.initial <= 0 {
			f.initial, whole = -1, true
		}
	}
	return updates, whole
}
