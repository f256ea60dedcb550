package apply

import (
	"testing"
	"time"
)

func TestBurstGate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var gate BurstGate
	write := func(n int, every time.Duration) {
		for range n {
			now = now.Add(every)
			gate.CountWrite(now)
		}
	}
	wantDelay := func(when string, want bool) {
		t.Helper()
		if got := gate.StatusDelay(now) > 0; got != want {
			t.Errorf("%s: delayed %v", when, got)
		}
	}
	wantDelay("nothing was written", false)
	write(15, 10*time.Millisecond)
	wantDelay("a few writes", false)
	write(1, 10*time.Millisecond)
	wantDelay("many writes", true)
	now = now.Add(burstMaxGap)
	wantDelay("after the burst", false)
	write(15, 10*time.Millisecond)
	wantDelay("a few writes after it", false)
	write(200, 10*time.Millisecond)
	wantDelay("many writes again", true)
	write(200, 10*time.Millisecond)
	wantDelay("a burst that lasts", false)
	write(100, burstMaxGap)
	wantDelay("writes far apart", false)
}
