package traffic

import "time"

// awayEdges are the edges of which there is no word: they connect elsewhere, or to a replica of the hub that is not heard.
// Clients send on, and may move from any edge to any other meanwhile.
type awayEdges struct {
	rates map[string]float64 // what each sent before
	// level is what all edges sent before.
	level float64
}

// Away says that an edge's reports cannot be heard for a while. Until it reports again or is forgotten, the demand is at least
// what all edges sent before: what the others gain or lose may be its clients who moved.
func (d *Demand) Away(edge string, now time.Time) {
	if _, already := d.away.rates[edge]; already || len(d.samples[edge]) == 0 {
		return
	}
	if len(d.away.rates) == 0 {
		d.away.rates, d.away.level = map[string]float64{}, 0
	}
	d.away.rates[edge] = d.sent(edge, now)
	all := d.away.rates[edge]
	for _, other := range d.reportingEdges(now) { // without those that are away
		all += d.sent(other, now)
	}
	d.away.level = max(d.away.level, all)
}

// ForgetAway removes an edge that is still away.
func (d *Demand) ForgetAway(edge string) {
	if _, away := d.away.rates[edge]; away {
		d.ForgetEdge(edge)
	}
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
	if len(a.rates) == 0 {
		return 0
	}
	return max(0, a.level-others)
}

// forget removes an edge, and what it sent.
func (a *awayEdges) forget(edge string) {
	a.level -= a.rates[edge]
	delete(a.rates, edge)
}
