package replica

import "time"

// Intervals of a link.
const (
	// Heartbeat is how often each replica sends a Frame at least.
	Heartbeat = 500 * time.Millisecond
	// Tick is how often a reader counts.
	Tick = 100 * time.Millisecond
	// SilentTicks without a Frame make a replica silent: three heartbeats.
	SilentTicks = int(1500 * time.Millisecond / Tick)
	// GoneTicks of silence make it gone: longer than the restart of a pod or a node takes.
	GoneTicks = int(10 * time.Minute / Tick)
)

// Change is what became of another replica.
type Change int

// Changes of a Presence.
const (
	NoChange Change = iota
	// NowHeard: its maps are whole.
	NowHeard
	// NowSilent: nothing comes from it.
	NowSilent
	// NowLeaving: it said that it stops.
	NowLeaving
	// NowGone: it was silent for long.
	NowGone
)

// Presence says whether one other replica is heard.
type Presence struct {
	heard   bool
	leaving bool
	quiet   int // ticks since the last Frame
}

// Heard says whether the replica's maps are whole and it is not silent.
func (p *Presence) Heard() bool { return p.heard }

// Leaving says whether the replica said that it stops.
func (p *Presence) Leaving() bool { return p.leaving }

// Frame came from the replica, and is the one that makes its maps whole, or any other.
func (p *Presence) Frame(f Frame) []Change {
	p.quiet = 0
	var changes []Change
	if f.Whole && !p.heard {
		p.heard, p.leaving = true, false // what it said before does not hold on
		changes = append(changes, NowHeard)
	}
	if f.Leaving && !p.leaving {
		changes = append(changes, NowLeaving)
	}
	p.leaving = f.Leaving
	return changes
}

// Refused: the connection ended, and nobody takes another one.
func (p *Presence) Refused() Change {
	if !p.heard {
		return NoChange
	}
	p.heard = false
	return NowSilent
}

// Tick passed.
func (p *Presence) Tick() Change {
	switch p.quiet++; {
	case p.heard && p.quiet >= SilentTicks:
		p.heard = false
		return NowSilent
	case p.quiet == GoneTicks:
		return NowGone
	}
	return NoChange
}
