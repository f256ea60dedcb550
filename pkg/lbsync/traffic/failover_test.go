package traffic

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// No weight is lost by a failover, backends that are down keep a small probe, and the others their proportions.
func TestFailoverLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weight := rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(1, 1e6))
		up, down, fallback := weight.Draw(t, "up"), weight.Draw(t, "down"), weight.Draw(t, "fallback")
		upFactor, downFactor, fallbackFactor := FailoverFactors(up, down, fallback)
		if got, want := up*upFactor+down*downFactor+fallback*fallbackFactor, up+down; math.Abs(got-want) > want*1e-9 {
			t.Fatalf("%v of %v is sent", got, want)
		}
		if down == 0 || up+fallback == 0 {
			if upFactor != 1 || downFactor != 1 || fallbackFactor != 0 {
				t.Fatal("no backend is down, or none is up, and weights move")
			}
			return
		}
		if probe := down * downFactor; probe <= 0 || probe > down/10*(1+1e-9) || probe > (up+down+fallback)/100*(1+1e-9) {
			t.Fatalf("a probe of %v", probe)
		}
		if math.Abs(upFactor-1-fallbackFactor) > 1e-9*upFactor {
			t.Fatalf("the own backends get %v more, the fallback %v", upFactor-1, fallbackFactor)
		}
	})
}
