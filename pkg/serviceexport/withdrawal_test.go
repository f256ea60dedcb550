package serviceexport

import (
	"testing"
	"time"
)

// More than half and more than a few exports that are gone at a start wait for a word.
func TestPausesWithdrawal(t *testing.T) {
	for _, c := range []struct {
		lacking, onHub int
		want           bool
	}{
		{0, 0, false}, {0, 9, false}, {1, 1, false}, {3, 3, false}, {4, 4, true}, {4, 7, true}, {4, 8, false}, {50, 100, false}, {51, 100, true},
	} {
		if got := PausesWithdrawal(c.lacking, c.onHub); got != c.want {
			t.Errorf("%d of %d: %t, want %t", c.lacking, c.onHub, got, c.want)
		}
	}
}

func TestPauseName(t *testing.T) {
	if got := PauseName(11, 12, time.Date(2026, 1, 1, 9, 0, 0, 5, time.FixedZone("CET", 3600))); got != "11-of-12-20260101T080000Z" {
		t.Error(got)
	}
}
