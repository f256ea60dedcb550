package lbsync

import (
	"math"
	"slices"
	"time"
)

const (
	// demandWindow is what the estimate averages over: long enough that the reports of a constant demand move no
	// share, short enough that a fall is known within three windows of "a few seconds" (3 x 3 s).
	demandWindow = 6 * time.Second
	// settleWindow is what each edge must have reported before an estimate may replace learned shares.
	settleWindow = 4 * time.Second
	// settlePatience is how long learned shares wait for an edge that does not report.
	settlePatience = 5 * time.Second
	// riseSigmas is by how many standard deviations of counting (the square root of the expected count) a report
	// must exceed the estimate to count at once.
	riseSigmas = 2.5
	// silence is how long an import may leave no trace at all after failing before its demand counts as gone: more
	// than a few ejection times, after which an Envoy with clients would have tried, and failed, again.
	silence = time.Minute
)

// Sample is what one edge counted for one import since its last report, summed over all assignments and members.
type Sample struct {
	Edge string
	// End is when the report arrived; it covers the Interval before.
	End      time.Time
	Interval time.Duration
	// Issued counts requests sent to an endpoint. A failed connection is Failed without being Issued, and a request
	// that found no healthy endpoint is counted nowhere (Envoy's load reports).
	Issued, Succeeded, Failed uint64
	// Unserved: the import had no ready endpoint anywhere, so that Issued says nothing.
	Unserved bool
}

func (s Sample) start() time.Time { return s.End.Add(-s.Interval) }

// Demand estimates what the clients of one region send for one import, in requests per second: up at once when a
// report exceeds what counting noise explains, down to the truth within three windows, kept while everything is down.
// The zero value has seen nothing. Edges report unsynchronised.
type Demand struct {
	samples map[string][]Sample // by edge, oldest first, within demandWindow
	first   map[string]time.Time
	// since: reports that began before are not averaged. rising: until every edge has reported a whole interval
	// after since, the estimate is the most that was seen.
	since    time.Time
	rising   bool
	estimate float64
	down     bool
	traced   time.Time // when anything was last counted
}

// Observe adds one edge's report; reports of one edge come in order of time.
func (d *Demand) Observe(s Sample) {
	if s.Interval <= 0 {
		return
	}
	if d.samples == nil {
		d.samples, d.first = map[string][]Sample{}, map[string]time.Time{}
	}
	if _, known := d.first[s.Edge]; !known {
		d.first[s.Edge] = s.start()
	}
	if s.Issued+s.Succeeded+s.Failed > 0 || s.Unserved {
		d.traced = s.End
	}
	history := append(d.samples[s.Edge], s)
	for len(history) > 1 && history[1].start().Before(s.End.Add(-demandWindow)) {
		history = history[1:]
	}
	d.samples[s.Edge] = slices.Clone(history)
	d.update(s.End)
}

// Forget removes an edge that is gone; its clients are counted where they come back.
func (d *Demand) Forget(edge string) {
	delete(d.samples, edge)
	delete(d.first, edge)
}

// Rate is the estimate in requests per second.
func (d *Demand) Rate() float64 { return d.estimate }

// Settled says whether the estimate may replace shares that were learned from the edges at learned: every edge has
// reported for long enough that constant demand changes nothing, or is waited for no longer.
func (d *Demand) Settled(edges []string, learned, now time.Time) bool {
	for _, edge := range edges {
		first, reported := d.first[edge]
		if !reported && now.Sub(learned) < settlePatience {
			return false
		}
		if reported && d.latest(edge).End.Sub(first) < settleWindow {
			return false
		}
	}
	return true
}

func (d *Demand) latest(edge string) Sample {
	history := d.samples[edge]
	if len(history) == 0 {
		return Sample{}
	}
	return history[len(history)-1]
}

func (d *Demand) update(now time.Time) {
	mean, current := d.mean(now), d.current(now)
	rises := current > d.estimate+riseSigmas*math.Sqrt(d.estimate)+1
	d.down = d.failing(now)
	if d.down { // what is counted now is less than what clients send: only a clear rise says something
		if rises {
			d.estimate = current
		}
		d.rising, d.since = true, now
		return
	}
	if !d.rising && rises {
		d.rising, d.since = true, now
	}
	if d.rising && !d.wholeSince(now) {
		d.estimate = max(d.estimate, current)
		return
	}
	if d.rising { // the first whole reports are in: they are the truth
		d.rising = false
		mean = d.mean(now)
	}
	d.estimate = mean
}

// recent lists the edges that report, sorted: an edge that missed two reports is gone or stuck, and its clients with it.
func (d *Demand) recent(now time.Time) []string {
	var edges []string
	for edge := range d.samples {
		if s := d.latest(edge); now.Sub(s.End) < 2*s.Interval+s.Interval/2 {
			edges = append(edges, edge)
		}
	}
	slices.Sort(edges)
	return edges
}

// current is the sum of each edge's last report.
func (d *Demand) current(now time.Time) float64 {
	sum := 0.0
	for _, edge := range d.recent(now) {
		s := d.latest(edge)
		sum += float64(s.Issued) / s.Interval.Seconds()
	}
	return sum
}

// mean is the sum of each edge's average over the window, no older than since.
func (d *Demand) mean(now time.Time) float64 {
	sum := 0.0
	for _, edge := range d.recent(now) {
		issued, covered := 0.0, 0.0
		for _, s := range d.samples[edge] {
			if d.whole(s) && s.tells() {
				issued += float64(s.Issued)
				covered += s.Interval.Seconds()
			}
		}
		if covered > 0 {
			sum += issued / covered
		}
	}
	return sum
}

// tells is false of a report with failures alone: what found every host ejected is not in it.
func (s Sample) tells() bool { return s.Succeeded > 0 || s.Failed == 0 }

// whole says whether a report began after since; a twentieth of its length forgives clocks and queues.
func (d *Demand) whole(s Sample) bool { return !s.start().Before(d.since.Add(-s.Interval / 20)) }

func (d *Demand) wholeSince(now time.Time) bool {
	for _, edge := range d.recent(now) {
		if !d.whole(d.latest(edge)) {
			return false
		}
	}
	return true
}

// failing says that nothing succeeds: the last traces of the import were failures alone. It ends with a success, with
// requests that are merely slow, or with a minute in which nobody tried.
func (d *Demand) failing(now time.Time) bool {
	var failed, issued, succeeded uint64
	unserved := false
	for _, edge := range d.recent(now) {
		s := d.latest(edge)
		failed += s.Failed
		issued += s.Issued
		succeeded += s.Succeeded
		unserved = unserved || s.Unserved
	}
	switch {
	case unserved:
		return true
	case succeeded > 0:
		return false
	case failed > 0:
		return true
	default:
		return d.down && issued == 0 && now.Sub(d.traced) < silence
	}
}
