package replica

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// address is a key of a topic.
type address struct{ topic, key string }

func (a address) compare(b address) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.key, b.key))
}

// Own has the maps of this replica.
type Own struct {
	values    map[address][]byte
	bytes     int
	followers map[*Follower]struct{}
}

// NewOwn returns empty maps.
func NewOwn() *Own {
	return &Own{values: map[address][]byte{}, followers: map[*Follower]struct{}{}}
}

// Set makes value that of the key of a topic. An error says which limit it is beyond; the
// key has no value then.
func (o *Own) Set(topic, key string, value []byte) error {
	at := address{topic, key}
	earlier, was := o.values[at]
	if was && bytes.Equal(earlier, value) {
		return nil
	}
	grown := o.bytes + len(value) - len(earlier)
	if fault := limitFault(topic, key, value, len(o.values), grown, was); fault != nil {
		o.Delete(topic, key)
		return fault
	}
	o.values[at], o.bytes = value, grown
	o.tell(at)
	return nil
}

// limitFault says which limit a value is beyond: keys are those before it, bytes those with it.
func limitFault(topic, key string, value []byte, keys, bytes int, replaced bool) error {
	switch {
	case len(key) > MaxKeyBytes || len(topic) > MaxKeyBytes:
		return fmt.Errorf("a key of topic %.32q has %d bytes, over %d", topic, len(key), MaxKeyBytes)
	case len(value) > MaxValueBytes:
		return fmt.Errorf("the value of %s %q has %d bytes, over %d", topic, key, len(value), MaxValueBytes)
	case bytes > MaxBytes:
		return fmt.Errorf("with %s %q there are %d bytes, over %d", topic, key, bytes, MaxBytes)
	case !replaced && keys >= MaxKeys:
		return fmt.Errorf("%s %q would be one key more than %d", topic, key, MaxKeys)
	}
	return nil
}

// Delete removes a key.
func (o *Own) Delete(topic, key string) {
	at := address{topic, key}
	if value, was := o.values[at]; was {
		delete(o.values, at)
		o.bytes -= len(value)
		o.tell(at)
	}
}

// Sizes are the bytes of the values of each topic.
func (o *Own) Sizes() map[string]int { return sizes(o.values) }

func sizes(values map[address][]byte) map[string]int {
	out := map[string]int{}
	for at, value := range values {
		out[at.topic] += len(value)
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
		value, is := f.own.values[at]
		updates = append(updates, Update{Topic: at.topic, Key: at.key, Value: value, Deleted: !is})
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
