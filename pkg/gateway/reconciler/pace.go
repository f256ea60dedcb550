package reconciler

import "time"

const (
	// quiet is how long no event must come before a build while there is a lot
	// to do: a change often is several objects that arrive together.
	quiet = 2 * time.Millisecond
	// patience is the longest that a change waits for a storm to end, and how
	// long after a build the next event counts as of the same storm.
	patience = 50 * time.Millisecond
	// breath is how many times as long as a build took none follows it: a storm
	// needs the processors for what else it brings.
	breath = 4
)

// pace says when to build: at once for the first event after a pause, and then
// when events pause, or once the first of them has waited for long enough. After
// a build it rests for four times as long as that took, so that steady changes
// take at most a fifth of a core, but never for longer than patience.
type pace struct {
	first, last time.Time // events that wait; zero: none
	rested      time.Time // no build before
	ended       time.Time // of the last build
}

// event notes a change.
func (p *pace) event(now time.Time) {
	if p.first.IsZero() {
		p.first = now
	}
	p.last = now
}

// due is when to build; false while nothing waits.
func (p *pace) due() (time.Time, bool) {
	if p.first.IsZero() {
		return time.Time{}, false
	}
	due := p.last.Add(quiet)
	if latest := p.first.Add(patience); due.After(latest) {
		due = latest
	}
	if p.first.After(p.ended.Add(patience)) {
		due = p.first
	}
	if due.Before(p.rested) {
		due = p.rested
	}
	return due, true
}

// built notes a build of all changes before began.
func (p *pace) built(began, ended time.Time) {
	p.looked(began, ended)
	p.ended = ended
}

// looked notes a look at what came before began that found nothing to build: an
// edge's answer, mostly, and no part of a storm. Looks rest as builds do.
func (p *pace) looked(began, ended time.Time) {
	p.first, p.last = time.Time{}, time.Time{}
	p.rested = ended.Add(min(breath*ended.Sub(began), patience))
}
