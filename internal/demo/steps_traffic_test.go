package demo

import (
	"testing"

	"crossway.dev/crossway/internal/lab/load"
)

// 3 of 30 requests are a tenth, whatever 23/30 - 20/30 is in binary.
func TestTwentyOfThirty(t *testing.T) {
	for usWest, want := range map[int]bool{16: false, 17: true, 20: true, 23: true, 24: false} {
		window := make([]load.Sample, 30)
		for i := range window {
			window[i] = load.Sample{Status: 200, Cluster: "eu-west"}
			if i < usWest {
				window[i].Cluster = "us-west"
			}
		}
		if got := twentyOfThirty(window); got != want {
			t.Errorf("%d of 30: %v", usWest, got)
		}
	}
}
