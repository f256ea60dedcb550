package traffic

import (
	"math"
	"time"
)

// movesAfterAway is in what time after an edge's reports ended its clients may turn up at others: some send their next
// request a few seconds later, to the next address that they know.
const movesAfterAway = 10 * time.Second

// awayEdges are the edges of which there is no word: they connect elsewhere, or to a replica of the hub that is not heard.
// Their clients send on.
type awayEdges struct {
	rates map[string]float64 // what each sent before
	// base is what the others sent when the last one went. What they send beyond it until the time until is taken for
	// requests of clients that moved.
	base  float64
	until time.Time
}

// Away says that an edge's reports cannot be heard for a while. What it sent stays a part of the demand until it reports
// again or is forgotten, less what other edges gain at once.
func (d *Demand) Away(edge string, now time.Time) {
	if _, already := d.away.rates[edge]; already || len(d.samples[edge]) == 0 {
		return
	}
	rate := d.sent(edge, now)
	if d.away.rates == nil {
		d.away.rates = map[string]float64{}
	}
	d.away.settle(d.others(now))
	d.away.rates[edge] = rate
	d.away.base, d.away.until = d.others(now), now.Add(movesAfterAway)
}

// ForgetAway removes an edge that is still away.
func (d *Demand) ForgetAway(edge string) {
	if _, away := d.away.rates[edge]; away {
		d.ForgetEdge(edge)
	}
}

// others is what the edges send that report.
func (d *Demand) others(now time.Time) float64 {
	sum := 0.0
	for _, edge := range d.reportingEdges(now) {
		sum += d.sent(edge, now)
	}
	return sum
}

// sent is what one edge sent on average: since a rise, where one was just seen, if only in its last report.
func (d *Demand) sent(edge string, now time.Time) float64 {
	if issued, covered := countsWithin(d.samples[edge], d.windowBegin(now), now); covered > 0 {
		return issued / covered
	}
	return d.latest(edge).rate()
}

// left is what clients of the edges that are away send, where the others send so much.
func (a *awayEdges) left(others float64) float64 {
	sum := 0.0
	for _, rate := range a.rates {
		sum += rate
	}
	return max(0, sum-max(0, others-a.base))
}

// settle takes what the others have gained so far from the edges that are away.
func (a *awayEdges) settle(others float64) {
	before := a.left(-1)
	if before == 0 {
		return
	}
	part := a.left(others) / before
	for edge := range a.rates {
		a.rates[edge] *= part
	}
	a.base, a.until = math.Inf(1), time.Time{}
}

// back says that an edge reports again. It is one of the others from now on.
func (a *awayEdges) back(edge string) {
	a.base += a.rates[edge]
	delete(a.rates, edge)
}
