package replica

import (
	"bytes"
	"maps"
	"slices"
)

// Mirror has the maps of one other replica.
type Mirror struct {
	values map[address][]byte
	bytes  int
	// listed are the keys that came since the connection began; nil: the maps are whole.
	listed map[address]struct{}
}

// NewMirror returns empty maps of a replica that was never heard.
func NewMirror() *Mirror {
	return &Mirror{values: map[address][]byte{}, listed: map[address]struct{}{}}
}

// Begin is the begin of a connection: everything comes anew.
func (m *Mirror) Begin() { m.listed = map[address]struct{}{} }

// Apply takes what a Frame has and returns what changed by it. With the Frame that makes
// the maps whole, keys that were not listed are deleted. Topics that are not known here
// are left out: a newer version may have them.
func (m *Mirror) Apply(f Frame, known func(topic string) bool) ([]Update, error) {
	var changed []Update
	for _, u := range f.Updates {
		if !known(u.Topic) {
			continue
		}
		is, err := m.take(u)
		if err != nil {
			return changed, err
		}
		if is {
			changed = append(changed, u)
		}
	}
	if f.Whole && m.listed != nil {
		changed = append(changed, m.remove(func(at address) bool { _, listed := m.listed[at]; return !listed })...)
		m.listed = nil
	}
	return changed, nil
}

// take returns whether an Update changes something.
func (m *Mirror) take(u Update) (bool, error) {
	at := address{u.Topic, u.Key}
	earlier, was := m.values[at]
	if u.Deleted {
		delete(m.values, at)
		m.bytes -= len(earlier)
		return was, nil
	}
	if m.listed != nil {
		m.listed[at] = struct{}{}
	}
	if was && bytes.Equal(earlier, u.Value) {
		return false, nil
	}
	grown := m.bytes + len(u.Value) - len(earlier)
	// Half counts: until the maps are whole, keys that are no longer there count too.
	if err := limitFault(u.Topic, u.Key, u.Value, len(m.values)/2, grown/2, was); err != nil {
		return false, err
	}
	m.values[at], m.bytes = u.Value, grown
	return true, nil
}

// Clear deletes all.
func (m *Mirror) Clear() []Update {
	m.listed = map[address]struct{}{}
	return m.remove(func(address) bool { return true })
}

// remove deletes keys and returns that, in order.
func (m *Mirror) remove(which func(address) bool) []Update {
	var out []Update
	for _, at := range slices.SortedFunc(maps.Keys(m.values), address.compare) {
		if which(at) {
			m.bytes -= len(m.values[at])
			delete(m.values, at)
			out = append(out, Update{Topic: at.topic, Key: at.key, Deleted: true})
		}
	}
	return out
}
