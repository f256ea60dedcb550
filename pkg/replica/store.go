package replica

import (
	"cmp"
	"fmt"
)

// address is a key of a topic.
type address struct{ topic, key string }

func (a address) compare(b address) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.key, b.key))
}

// value is that of a key. unknown: there is one, and it is beyond a limit.
type value struct {
	data    []byte
	unknown bool
}

// store has values, and counts those of each topic.
type store struct {
	values map[address]value
	topics map[string]size
	// times is how often the limits of a topic fit into it.
	times int
}

// size is what a topic has.
type size struct{ keys, bytes int }

func newStore(times int) store {
	return store{values: map[address]value{}, topics: map[string]size{}, times: times}
}

func (s *store) put(at address, v value) {
	s.delete(at)
	topic := s.topics[at.topic]
	s.values[at], s.topics[at.topic] = v, size{topic.keys + 1, topic.bytes + len(v.data)}
}

// delete returns whether there was a value.
func (s *store) delete(at address) bool {
	last, was := s.values[at]
	if !was {
		return false
	}
	delete(s.values, at)
	topic := s.topics[at.topic]
	if s.topics[at.topic] = (size{topic.keys - 1, topic.bytes - len(last.data)}); topic.keys == 1 {
		delete(s.topics, at.topic)
	}
	return true
}

// keyFault says why a key has no place at all.
func (s *store) keyFault(at address) error {
	_, was := s.values[at]
	switch {
	case len(at.key) > MaxKeyBytes || len(at.topic) > MaxKeyBytes:
		return fmt.Errorf("a key of topic %.32q has %d bytes, over %d", at.topic, len(at.key), MaxKeyBytes)
	case !was && s.topics[at.topic].keys >= s.times*MaxKeys:
		return fmt.Errorf("%s %q would be one key more than %d", at.topic, at.key, s.times*MaxKeys)
	}
	return nil
}

// fault says which limit a key or its value is beyond.
func (s *store) fault(at address, data []byte) error {
	if err := s.keyFault(at); err != nil {
		return err
	}
	bytes := s.topics[at.topic].bytes + len(data) - len(s.values[at].data)
	switch {
	case len(data) > MaxValueBytes:
		return fmt.Errorf("the value of %s %q has %d bytes, over %d", at.topic, at.key, len(data), MaxValueBytes)
	case bytes > s.times*MaxBytes:
		return fmt.Errorf("with %s %q there are %d bytes of the topic, over %d", at.topic, at.key, bytes, s.times*MaxBytes)
	}
	return nil
}
