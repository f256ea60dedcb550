package apply

import (
	"testing"
	"time"
)

func TestRush(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var r Rush
	write := func(n int, every time.Duration) {
		for range n {
			now = now.Add(every)
			r.Wrote(now)
		}
	}
	waits := func(why string, want bool) {
		t.Helper()
		if got := r.Wait(now) > 0; got != want {
			t.Errorf("%s: waits %v", why, got)
		}
	}
	waits("nothing was written", false)
	write(15, 10*time.Millisecond)
	waits("a few", false)
	write(1, 10*time.Millisecond)
	waits("many", true)
	now = now.Add(rushGap)
	waits("it is over", false)
	write(15, 10*time.Millisecond)
	waits("a few more after it", false)
	write(200, 10*time.Millisecond)
	waits("many again", true)
	write(200, 10*time.Millisecond)
	waits("for long", false)
	write(100, rushGap)
	waits("now and then", false)
}
