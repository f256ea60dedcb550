package registration

import (
	"cmp"
	"slices"
	"time"
)

const (
	// ClockTolerance is the difference of two clocks that nobody is told of: what
	// NTP and a busy machine leave, several times over.
	ClockTolerance = 10 * time.Second
	// clockReadings is how many renewals a difference is taken from.
	clockReadings = 3
)

// Clocks are two readings of one moment: what a member's clock said when its agent
// renewed the Lease, and what the hub's clock said when the hub saw that.
type Clocks struct{ Member, Hub time.Time }

// Ahead is how far the member's clock is ahead of the hub's; below 0: behind.
func (c Clocks) Ahead() time.Duration { return c.Member.Sub(c.Hub) }

// ClockHistory is what the hub knows of the clock of one member.
type ClockHistory struct {
	readings []Clocks // the latest, at most clockReadings
	told     *Clocks  // what the condition shows; nil: no difference
}

// With returns the history with one more reading. What is told is replaced only if the
// difference has changed, so that a condition does not change with each renewal.
func (h ClockHistory) With(reading Clocks) ClockHistory {
	next := ClockHistory{readings: append(slices.Clone(h.readings), reading), told: h.told}
	next.readings = next.readings[max(0, len(next.readings)-clockReadings):]
	if !next.Known() {
		return next
	}
	// a renewal that arrives late makes a clock look behind: the one furthest ahead is nearest to the truth
	now := slices.MaxFunc(next.readings, func(a, b Clocks) int { return cmp.Compare(a.Ahead(), b.Ahead()) })
	difference := now.Ahead().Abs()
	switch {
	case h.told == nil && difference <= ClockTolerance, difference <= ClockTolerance/2:
		next.told = nil
	case h.told == nil, (now.Ahead() - h.told.Ahead()).Abs() > max(ClockTolerance/2, difference/10):
		next.told = &now
	}
	return next
}

// Told is the difference that there is to tell of, as it was at one moment; nil: none.
func (h ClockHistory) Told() *Clocks { return h.told }

// Known tells whether there were enough renewals to tell a difference from a delay.
func (h ClockHistory) Known() bool { return len(h.readings) > 1 }
