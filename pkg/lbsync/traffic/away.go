package traffic

import "time"

// awayEdges are the edges of which there is no word: they connect elsewhere, or to a replica of the hub that is not heard.
// Clients send on, and may move from any edge to any other meanwhile.
type awayEdges struct {
	rates map[string]float64 // what each sent before
	// level is the demand before, and expected what another replica of the hub says that it is.
	level, expected float64
}

// Expect says what all edges send, as another replica of the hub knows it. For one that has just started, that is the estimate,
// and the level while edges are away: one or two reports of each edge say less. Edges that have not reported here count as
// away. 0 ends it: what edges report is enough.
func (d *Demand) Expect(rate float64, edges []string) {
	d.away.expected = rate
	if rate == 0 {
		return
	}
	for _, edge := range edges {
		if _, already := d.away.rates[edge]; !already && len(d.samples[edge]) == 0 {
			d.setAway(edge, 0)
		}
	}
	d.estimate, d.away.level = rate, rate
}

// Away says that an edge's reports cannot be heard for a while. Until it has reported twice or is forgotten, the demand is at
// least what it was: what the others gain or lose may be its clients who moved. One report is not enough, for it may be up to a
// second old, as the next one shows: from a replica of the hub that was not heard comes what was reported last.
func (d *Demand) Away(edge string, now time.Time) {
	if _, already := d.away.rates[edge]; already || len(d.samples[edge]) == 0 && d.away.expected == 0 {
		return
	}
	d.setAway(edge, d.sent(edge, now))
	delete(d.samples, edge) // clients may come and go meanwhile
	if d.away.expected > 0 {
		d.estimate, d.away.level = d.away.expected, 0
	}
	d.away.level = max(d.away.level, d.estimate)
}

func (d *Demand) setAway(edge string, rate float64) {
	if len(d.away.rates) == 0 {
		d.away.rates, d.away.level = map[string]float64{}, 0
	}
	d.away.rates[edge] = rate
}

// HasAway says whether an edge is away, so that the demand is known less well.
func (d *Demand) HasAway() bool { return len(d.away.rates) > 0 }

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
	if len(d.samples[edge]) == 0 {
		return 0
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

// back says whether an edge was away until now.
func (a *awayEdges) back(edge string) bool {
	_, away := a.rates[edge]
	delete(a.rates, edge)
	return away
}

// forget removes an edge, and what it sent.
func (a *awayEdges) forget(edge string) {
	a.level -= a.rates[edge]
	delete(a.rates, edge)
}
