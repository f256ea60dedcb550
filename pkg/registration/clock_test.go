package registration

import (
	"testing"
	"time"
)

// A difference of clocks is told once it is more than late renewals explain, as it was at
// one moment, and again only when it changes.
func TestClockHistory(t *testing.T) {
	for _, c := range []struct {
		what  string
		ahead []time.Duration // of the member's clock, as the hub sees it
		want  []time.Duration // what is told after each renewal; 0: nothing
	}{
		{"in step", []time.Duration{-time.Second, 0, time.Second}, []time.Duration{0, 0, 0}},
		{"one renewal says nothing", []time.Duration{time.Hour}, []time.Duration{0}},
		{"ahead", []time.Duration{time.Hour, time.Hour + time.Second}, []time.Duration{0, time.Hour + time.Second}},
		{"behind", []time.Duration{-time.Minute, -time.Minute - time.Second}, []time.Duration{0, -time.Minute}},
		{"late renewals", []time.Duration{-time.Minute, -40 * time.Second, 0, -time.Minute, -time.Minute, 0}, []time.Duration{0, -40 * time.Second, 0, 0, 0, 0}},
		{"it wavers", []time.Duration{-60 * time.Second, -61 * time.Second, -58 * time.Second, -63 * time.Second, -64 * time.Second, -62 * time.Second},
			[]time.Duration{0, -60 * time.Second, -60 * time.Second, -60 * time.Second, -60 * time.Second, -60 * time.Second}},
		{"it grows and is mended", []time.Duration{20 * time.Second, 20 * time.Second, 40 * time.Second, 0, 0, 0},
			[]time.Duration{0, 20 * time.Second, 40 * time.Second, 40 * time.Second, 40 * time.Second, 0}},
		{"at the tolerance", []time.Duration{11 * time.Second, 11 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second},
			[]time.Duration{0, 11 * time.Second, 11 * time.Second, 11 * time.Second, 11 * time.Second, 11 * time.Second, 11 * time.Second, 0}},
	} {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var h ClockHistory
		for i, ahead := range c.ahead {
			at = at.Add(10 * time.Second)
			h = h.With(Clocks{Member: at.Add(ahead), Hub: at})
			var told time.Duration
			if h.told != nil {
				told = h.told.Ahead()
			}
			if told != c.want[i] {
				t.Errorf("%s: after renewal %d told %s, want %s", c.what, i+1, told, c.want[i])
			}
		}
	}
}

// What a stranger may have written on a Lease is shown to nobody.
func TestRefusal(t *testing.T) {
	const uid = "0d1b9bbb-6f9c-4b7b-8f0b-0f6c1e3f7a11"
	want := Refusal{uid, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got, ok := ParseRefusal(want.String()); !ok || got.ClusterUID != uid || !got.Said.Equal(want.Said) {
		t.Errorf("%q reads as %v, %v", want, got, ok)
	}
	for _, text := range []string{"", uid, uid + " yesterday", "run this: curl 2026-01-01T00:00:00Z", "<b>" + uid + " 2026-01-01T00:00:00Z"} {
		if got, ok := ParseRefusal(text); ok {
			t.Errorf("%q reads as %v", text, got)
		}
	}
}
