package batch

import "time"

// Pace says when a loop should run next. The first event after a quiet period
// is due at once. During a burst a run is due when events pause for IdleDelay,
// or when the oldest has waited for MaxDelay. After each run the loop cools
// down for CooldownFactor times as long as the run took, at most MaxDelay, so
// that a steady stream of events uses at most 1/(1+CooldownFactor) of a core.
//
// The zero value of the unexported fields is a loop that has never run.
type Pace struct {
	IdleDelay      time.Duration // 0: a burst need not pause
	MaxDelay       time.Duration
	CooldownFactor int

	first, last time.Time // pending events; zero: none
	notBefore   time.Time // the end of the cool-down
	ended       time.Time // of the last run that counts as work
}

// Event notes an event.
func (p *Pace) Event(now time.Time) {
	if p.first.IsZero() {
		p.first = now
	}
	p.last = now
}

// Due is when to run; false while no event is pending.
func (p *Pace) Due() (time.Time, bool) {
	if p.first.IsZero() {
		return time.Time{}, false
	}
	due := p.last.Add(p.IdleDelay)
	if latest := p.first.Add(p.MaxDelay); due.After(latest) {
		due = latest
	}
	if p.first.After(p.ended.Add(p.MaxDelay)) {
		due = p.first
	}
	if due.Before(p.notBefore) {
		due = p.notBefore
	}
	return due, true
}

// Ran notes a run over all events before began: the next events belong to its burst.
func (p *Pace) Ran(began, ended time.Time) {
	p.Skipped(began, ended)
	p.ended = ended
}

// Skipped notes a run that found nothing to do. It cools down as Ran does, but
// the next event is not taken for part of a burst.
func (p *Pace) Skipped(began, ended time.Time) {
	p.first, p.last = time.Time{}, time.Time{}
	p.notBefore = ended.Add(min(time.Duration(p.CooldownFactor)*ended.Sub(began), p.MaxDelay))
}
