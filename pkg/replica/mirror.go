package replica

import (
	"bytes"
	"maps"
	"slices"
)

// Mirror has the maps of one other replica.
type Mirror struct {
	store
	// listed are the keys that came since the connection began; nil: the maps are whole.
	listed map[address]struct{}
}

// NewMirror returns empty maps of a replica that was never heard.
func NewMirror() *Mirror {
	// Until the maps are whole, keys that are no longer there have a place, too.
	return &Mirror{store: newStore(2), listed: map[address]struct{}{}}
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
	if u.Deleted {
		return m.delete(at), nil
	}
	if m.listed != nil {
		m.listed[at] = struct{}{}
	}
	earlier, was := m.values[at]
	if was && earlier.unknown == u.Unknown && bytes.Equal(earlier.data, u.Value) {
		return false, nil
	}
	if err := m.fault(at, u.Value); err != nil {
		return false, err
	}
	m.put(at, value{u.Value, u.Unknown})
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
			m.delete(at)
			out = append(out, Update{Topic: at.topic, Key: at.key, Deleted: true})
		}
	}
	return out
}
