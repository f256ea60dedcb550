package replica

import (
	"maps"
	"slices"
	"time"
)

// TooMany says whether a replica has at least two clients more than another one. So one
// that is moved there is not moved back.
func TooMany(own int, others []int) bool {
	return len(others) > 0 && own >= slices.Min(others)+2
}

// longestMoveWait is the longest time between two clients that are sent to a replica to
// which none comes.
const longestMoveWait = 10 * time.Minute

// Moves are the clients that a replica sent to others, by pool. A client that is sent only
// loses its connection, and a load balancer chooses where its next one leads: so a replica
// may be heard by replicas, and not be reached by clients. It is sent none for a time that
// doubles with each that does not come.
type Moves struct {
	interval time.Duration
	sent     map[place]sent
}

// place is where clients of a pool are sent.
type place struct{ replica, pool string }

// sent is what a replica had when it was sent a client, and how many it was sent since one came.
type sent struct {
	at         time.Time
	had, times int
}

// NewMoves returns Moves of one client in an interval to a replica at most.
func NewMoves(interval time.Duration) *Moves {
	return &Moves{interval: interval, sent: map[place]sent{}}
}

// Due says whether a replica has too many clients of a pool beside others that they reach.
func (m *Moves) Due(now time.Time, pool string, own int, others map[string]int) bool {
	var counts []int
	for name, has := range others {
		if !m.waits(now, place{name, pool}, has) {
			counts = append(counts, has)
		}
	}
	return TooMany(own, counts)
}

// Sent notes that a client was moved, for each replica that it may go to for the better.
func (m *Moves) Sent(now time.Time, pool string, own int, others map[string]int) {
	maps.DeleteFunc(m.sent, func(_ place, s sent) bool { return now.Sub(s.at) > 2*longestMoveWait }) // most are of replicas that have ended
	for name, has := range others {
		if at := (place{name, pool}); TooMany(own, []int{has}) && !m.waits(now, at, has) {
			m.sent[at] = sent{now, has, m.sent[at].times + 1}
		}
	}
}

// waits says whether a replica has got none of those that it was sent, the last one lately.
func (m *Moves) waits(now time.Time, at place, has int) bool {
	s, is := m.sent[at]
	switch {
	case !is:
		return false
	case has > s.had: // whoever sent it, clients reach the replica
		delete(m.sent, at)
		return false
	}
	s.had = has
	m.sent[at] = s
	wait := longestMoveWait
	if s.times < 10 { // later it is longer, or too long for a number
		wait = min(wait, m.interval<<s.times)
	}
	return now.Sub(s.at) < wait
}
