package traffic

// maxDownFraction bounds the part of its weight that a backend which is down keeps as a probe. It matters for backends
// of small weight.
const maxDownFraction = 0.1

// FailoverFactors says by what the weights of an assignment's backends are multiplied, where some of them are down. Its
// arguments are the sums of weights of the backends that are up and down, and of the fallback's backends that are up.
// Backends that are down keep 1 % of all weights to be probed, and at most 10 % of their own. The others take over the
// rest in proportion to their weights.
func FailoverFactors(up, down, fallback float64) (upFactor, downFactor, fallbackFactor float64) {
	if down <= 0 || up+fallback <= 0 {
		return 1, 1, 0
	}
	probes := min(down*maxDownFraction, (up+down+fallback)*probeFraction)
	more := (down - probes) / (up + fallback)
	return 1 + more, probes / down, more
}
