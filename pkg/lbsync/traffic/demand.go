package traffic

import (
	"math"
	"slices"
	"time"
)

const (
	// demandWindow is what the estimate averages over. It is long enough that the reports of a constant demand move no
	// share, and short enough that a fall is seen within three windows of "a few seconds" (3 x 3 s).
	demandWindow = 6 * time.Second
	// maxInterval bounds the interval of a report. One that says to cover hours, as of an edge that was long without a
	// hub or of one that lies, counts with its rate, and no longer than others.
	maxInterval = 10 * time.Second
	// minReportedTime is what each edge must have reported before an estimate may replace learned shares.
	minReportedTime = 4 * time.Second
	// maxSettleWait is how long learned shares wait for an edge that does not report, and for edges that have not connected
	// yet: the first report after a long outage covers all of it, so one edge may have reported for long enough at once.
	maxSettleWait = 5 * time.Second
	// riseSigmas is by how many standard deviations of counting (the square root of the expected count) a report
	// must exceed the estimate to count at once.
	riseSigmas = 2.5
	// goneTimeout is for how long nothing may be counted for an import that failed before its demand counts as gone. It
	// is longer than a few ejection times, after which an Envoy with clients would have tried, and failed, again.
	goneTimeout = time.Minute
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

func (s Sample) rate() float64 { return float64(s.Issued) / s.Interval.Seconds() }

// Demand estimates what the clients of one region send for one import, in requests per second. It rises at once when a
// report exceeds what counting noise explains, falls to the measured rate within three windows, and keeps its value
// while every request fails. Requests that come late, or that edges count twice because they report at different times, are
// no rise. The zero value has no samples.
type Demand struct {
	samples     map[string][]Sample // by edge, oldest first, within demandWindow
	firstReport map[string]time.Time
	away        awayEdges
	// resetAt: reports that began before it are not averaged. riseOnly: until every edge has reported a whole interval
	// after resetAt, the estimate is the maximum that was counted.
	resetAt      time.Time
	riseOnly     bool
	shortSince   time.Time // since when too little of the window is reported by all edges; zero: enough is
	estimate     float64
	allFailing   bool
	lastActivity time.Time // when anything was last counted
}

// Observe adds one edge's report; reports of one edge come in order of time.
func (d *Demand) Observe(s Sample) {
	if s.Interval <= 0 {
		return
	}
	if s.Interval > maxInterval {
		s.Issued, s.Interval = uint64(s.rate()*maxInterval.Seconds()), maxInterval
	}
	if d.samples == nil {
		d.samples, d.firstReport = map[string][]Sample{}, map[string]time.Time{}
	}
	if _, ok := d.firstReport[s.Edge]; !ok {
		d.firstReport[s.Edge] = s.start()
	}
	if s.Issued+s.Succeeded+s.Failed > 0 || s.Unserved {
		d.lastActivity = s.End
	}
	before := withoutGap(d.samples[s.Edge], s)
	if last := len(before) - 1; last >= 0 && d.away.back(s.Edge) && before[last].End.After(s.start()) {
		before[last].End = s.start()
	}
	history := append(before, s)
	for len(history) > 1 && history[1].start().Before(s.End.Add(-demandWindow)) {
		history = history[1:]
	}
	d.samples[s.Edge] = slices.Clone(history)
	d.update(s.End)
}

// withoutGap is an edge's history before a report, where that goes on from it. After a gap it says nothing: clients may have come and
// gone meanwhile. One report that is lost or late is no gap.
func withoutGap(history []Sample, s Sample) []Sample {
	if len(history) > 0 && s.start().Sub(history[len(history)-1].End) > s.Interval+s.Interval/2 {
		return nil
	}
	return history
}

// ForgetEdge removes an edge that is gone; its clients are counted where they reconnect.
func (d *Demand) ForgetEdge(edge string) {
	delete(d.samples, edge)
	delete(d.firstReport, edge)
	d.away.forget(edge)
}

// Rate is the estimate in requests per second.
func (d *Demand) Rate() float64 { return d.estimate }

// Settled says whether the estimate may replace shares that were learned from the edges at learnedAt: every edge has
// reported for long enough that constant demand changes nothing, or the wait for it is over.
func (d *Demand) Settled(edges []string, learnedAt, now time.Time) bool {
	if now.Sub(learnedAt) < maxSettleWait {
		return false
	}
	for _, edge := range edges {
		first, reported := d.firstReport[edge]
		if reported && len(d.samples[edge]) > 0 && d.latest(edge).End.Sub(first) < minReportedTime {
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
	current, certain := d.current(now), d.certain(now)
	rises := certain > d.estimate+riseSigmas*math.Sqrt(d.estimate)+1
	d.allFailing = d.failing(now)
	if d.allFailing { // fewer requests are counted than clients send, so only a clear rise says something
		if rises {
			d.estimate = current
		}
		d.riseOnly, d.resetAt = true, now
		return
	}
	if !d.riseOnly && rises {
		d.riseOnly, d.resetAt = true, now
	}
	if d.riseOnly && !d.allBeganAfterReset(now) {
		d.estimate = max(d.estimate, current)
		return
	}
	d.riseOnly = false // every edge has reported a whole interval: the mean is right from now on
	from, to := d.window(now)
	switch isShort := !from.Equal(d.resetAt) && to.Sub(from) < minReportedTime; {
	case !isShort:
		d.shortSince = time.Time{}
	case d.shortSince.IsZero():
		d.shortSince = now
		return
	case now.Sub(d.shortSince) < demandWindow:
		return
	default: // edges that report an idle import seldom; each is averaged by itself
		from = d.windowBegin(to)
	}
	d.estimate = d.mean(from, to, now)
}

// reportingEdges lists the edges that report, sorted. An edge that missed three reports is gone or stuck, and its clients
// with it. That is longer than it takes until a replica of the hub, which passes on its edges' reports, is known to be silent
// (then they are away). A report that came early says nothing about when the next one comes.
func (d *Demand) reportingEdges(now time.Time) []string {
	var edges []string
	for edge, history := range d.samples {
		longest := time.Duration(0)
		for _, s := range history {
			longest = max(longest, s.Interval)
		}
		if _, away := d.away.rates[edge]; !away && now.Sub(d.latest(edge).End) < 3*longest+longest/2 {
			edges = append(edges, edge)
		}
	}
	slices.Sort(edges)
	return edges
}

// current is the sum of each edge's last report.
func (d *Demand) current(now time.Time) float64 {
	sum := 0.0
	for _, edge := range d.reportingEdges(now) {
		sum += d.latest(edge).rate()
	}
	return sum + d.away.left(sum)
}

// certain is current without what may be requests that are counted late or twice.
//
// Requests that gathered while clients, or the network before the edge, did not get on come all at once: they make up for
// what was missing in the reports before. And edges report at different times, so clients that move from one edge to
// another are counted by both for a moment: what one edge gained may be what another has lost, or will say that it lost.
func (d *Demand) certain(now time.Time) float64 {
	sum, gained, lost := 0.0, 0.0, 0.0
	for _, edge := range d.reportingEdges(now) {
		s := d.latest(edge)
		punctual := max(0, s.rate()-d.missing(edge)/s.Interval.Seconds())
		sum += punctual
		before := 0.0
		if history := d.samples[edge]; len(history) > 1 {
			before = history[len(history)-2].rate()
		}
		gained += max(0, punctual-before)
		lost += max(0, before-punctual) + punctual*min(1, now.Sub(s.End).Seconds()/s.Interval.Seconds())
	}
	return sum + d.away.left(sum) - min(gained, lost)
}

// missing is how many requests an edge's two reports before the last have less than all those before the last on average.
func (d *Demand) missing(edge string) float64 {
	before := d.samples[edge]
	before = before[:max(0, len(before)-1)]
	issued, covered := countsWithin(before, time.Time{}, d.latest(edge).End)
	recentIssued, recentCovered := countsWithin(before[max(0, len(before)-2):], time.Time{}, d.latest(edge).End)
	if covered == 0 {
		return 0
	}
	return max(0, issued/covered*recentCovered-recentIssued)
}

// window is the time that is averaged. It ends where the report of every edge has come, and begins where all of them had begun
// to report, so that clients that moved from one edge to another are counted once. After a rise it may be short; where an edge
// has just begun to report, or does again after a gap, too little is in it.
func (d *Demand) window(now time.Time) (from, to time.Time) {
	edges := d.reportingEdges(now)
	to = now
	for _, edge := range edges {
		if end := d.latest(edge).End; end.Before(to) {
			to = end
		}
	}
	from = d.windowBegin(to)
	for _, edge := range edges {
		if begin := d.samples[edge][0].start(); begin.After(from) {
			from = begin
		}
	}
	return from, to
}

// mean is the sum of each edge's average over a window.
func (d *Demand) mean(from, to, now time.Time) float64 {
	sum := 0.0
	for _, edge := range d.reportingEdges(now) {
		if issued, covered := countsWithin(d.samples[edge], from, to); covered > 0 {
			sum += issued / covered
		}
	}
	return sum + d.away.left(sum)
}

// windowBegin is the begin of a window that ends at a time.
func (d *Demand) windowBegin(to time.Time) time.Time {
	if from := to.Add(-demandWindow); from.After(d.resetAt) {
		return from
	}
	return d.resetAt
}

// countsWithin sums the reports that are informative, those of which a part is in a time by that part.
func countsWithin(samples []Sample, from, to time.Time) (issued, seconds float64) {
	for _, s := range samples {
		begin, end := s.start(), s.End
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		if part := end.Sub(begin).Seconds(); part > 0 && s.informative() {
			issued += s.rate() * part
			seconds += part
		}
	}
	return issued, seconds
}

// informative is false for a report with failures alone: requests that found every endpoint ejected are missing in it.
func (s Sample) informative() bool { return s.Succeeded > 0 || s.Failed == 0 }

// beganAfterReset says whether a report began after resetAt. It tolerates a twentieth of the interval, for clocks and
// queues.
func (d *Demand) beganAfterReset(s Sample) bool {
	return !s.start().Before(d.resetAt.Add(-s.Interval / 20))
}

func (d *Demand) allBeganAfterReset(now time.Time) bool {
	for _, edge := range d.reportingEdges(now) {
		if !d.beganAfterReset(d.latest(edge)) {
			return false
		}
	}
	return true
}

// failing says that nothing succeeds: all that was last counted for the import were failures. It ends with a success,
// with requests that are merely slow, or after goneTimeout without a request.
func (d *Demand) failing(now time.Time) bool {
	var failed, issued, succeeded uint64
	unserved := false
	for _, edge := range d.reportingEdges(now) {
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
		return d.allFailing && issued == 0 && now.Sub(d.lastActivity) < goneTimeout
	}
}
