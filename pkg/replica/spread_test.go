package replica

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTooMany(t *testing.T) {
	for _, c := range []struct {
		own    int
		others []int
		want   bool
	}{
		{100, nil, false}, {1, []int{0}, false}, {2, []int{0}, true}, {2, []int{1}, false}, {11, []int{9}, true}, {4, []int{3, 3}, false},
		{2, []int{2, 0}, true}, {0, []int{9}, false},
	} {
		if got := TooMany(c.own, c.others); got != c.want {
			t.Errorf("%d beside %v: %v", c.own, c.others, got)
		}
	}
}

// flock are replicas of which each moves clients to others, and a load balancer that leads to some of them.
type flock struct {
	counts []int
	// reached are the replicas that clients reach.
	reached []bool
	moves   []*Moves
	moved   []time.Time
	coming  []arrival
	random  *rand.Rand
}

func newFlock(seed uint64) *flock {
	f := &flock{random: rand.New(rand.NewPCG(seed, 0)), moved: make([]time.Time, 2+seed%3)}
	for range f.moved {
		reached := f.random.IntN(4) > 0
		count := 0
		if reached {
			count = f.random.IntN(30)
		}
		f.counts, f.reached, f.moves = append(f.counts, count), append(f.reached, reached), append(f.moves, NewMoves(moveInterval))
	}
	return f
}

// arrival is a client on its way.
type arrival struct {
	at   time.Time
	from int
}

// step says how many clients were moved.
func (f *flock) step(now time.Time) (n int) {
	f.coming = slices.DeleteFunc(f.coming, func(a arrival) bool {
		if a.at.After(now) {
			return false
		}
		to := []int{}
		for i, reached := range f.reached {
			if reached && i != a.from {
				to = append(to, i)
			}
		}
		if len(to) == 0 {
			to = []int{a.from}
		}
		f.counts[to[f.random.IntN(len(to))]]++
		return true
	})
	for i, m := range f.moves {
		others := map[string]int{}
		for o, count := range f.counts {
			if o != i {
				others["abcd"[o:o+1]] = count
			}
		}
		if now.Sub(f.moved[i]) < moveInterval || !m.Due(now, "us", f.counts[i], others) {
			continue
		}
		m.Sent(now, "us", f.counts[i], others)
		f.moved[i], n = now, n+1
		f.counts[i]--
		f.coming = append(f.coming, arrival{now.Add(time.Duration(1+f.random.IntN(8)) * time.Second), i})
	}
	return n
}

const moveInterval = 6 * time.Second

// Clients are soon spread over the replicas that they reach, and then stay where they are, but for a few in an hour that
// are sent to replicas that none reaches.
func TestMovingEnds(t *testing.T) {
	for seed := range uint64(30) {
		f := newFlock(seed)
		begun, moved := fmt.Sprint(f.counts, f.reached), 0
		start := time.Unix(1_800_000_000, 0)
		for at := time.Duration(0); at < 3*time.Hour; at += time.Second {
			if n := f.step(start.Add(at)); at >= 2*time.Hour {
				moved += n
			}
		}
		var counts []int
		for i, reached := range f.reached {
			if reached {
				counts = append(counts, f.counts[i])
			}
		}
		// Each tries each of the others that none reaches every ten minutes, and who gets that client may send one back.
		if most := 2 * 7 * len(counts) * (len(f.counts) - len(counts)); moved > most {
			t.Errorf("of %s %d clients are moved within an hour, over %d: %v", begun, moved, most, f.counts)
		}
		if len(counts) == len(f.counts) && slices.Max(counts)-slices.Min(counts) > 1 {
			t.Errorf("%s ended with %v", begun, f.counts)
		}
	}
}

// A replica to which none of the clients comes that it was sent is sent one after 6 s, 12 s, 24 s ..., then one in ten
// minutes. The first that comes ends that.
func TestMovesToNobody(t *testing.T) {
	m, start := NewMoves(moveInterval), time.Unix(1_800_000_000, 0)
	others := map[string]int{"b": 3}
	var sent []time.Duration
	run := func(from, to time.Duration) {
		sent = nil
		for at := from; at < to; at += time.Second {
			if m.Due(start.Add(at), "us", 20, others) {
				m.Sent(start.Add(at), "us", 20, others)
				sent = append(sent, at/time.Second)
			}
		}
	}
	run(0, time.Hour)
	if want := []time.Duration{0, 12, 36, 84, 180, 372, 756, 1356, 1956, 2556, 3156}; !slices.Equal(sent, want) {
		t.Errorf("sent after %d seconds, want %d", sent, want)
	}
	others["b"] = 2 // one left, which says nothing
	if m.Due(start.Add(time.Hour), "us", 20, others) {
		t.Error("sent at once, although one left")
	}
	others["b"] = 3
	if run(time.Hour, time.Hour+12*time.Second); !slices.Equal(sent, []time.Duration{3600}) {
		t.Errorf("one came, and the next are sent after %d seconds", sent)
	}
	if !m.Due(start.Add(time.Hour), "eu", 20, others) {
		t.Error("another pool waits, too")
	}
}
