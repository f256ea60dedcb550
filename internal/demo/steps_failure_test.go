package demo

import (
	"net/http"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/load"
)

// A span is recovered when at most one answer in a hundred is slow, also in its
// first second, and none failed.
func TestRecovered(t *testing.T) {
	span := func(change func(i int, s *load.Sample)) []load.Sample {
		var out []load.Sample
		for i := range 6000 { // 300 a second for 20 s
			s := load.Sample{At: time.Unix(1000, 0).Add(time.Duration(i) * time.Second / 300), Took: time.Millisecond, Status: http.StatusOK}
			change(i, &s)
			out = append(out, s)
		}
		return out
	}
	slow := func(from, n int) func(int, *load.Sample) {
		return func(i int, s *load.Sample) {
			if i >= from && i < from+n {
				s.Took = time.Second
			}
		}
	}
	for _, story := range []struct {
		name string
		span []load.Sample
		want bool
	}{
		{"quick", span(slow(0, 0)), true},
		{"three slow in the first second", span(slow(0, 3)), true},
		{"four slow in the first second", span(slow(0, 4)), false},
		{"sixty slow later", span(slow(3000, 60)), true},
		{"sixty-one slow later", span(slow(3000, 61)), false},
		{"one failed", span(func(i int, s *load.Sample) {
			if i == 5000 {
				s.Status = http.StatusServiceUnavailable
			}
		}), false},
		{"nothing", nil, false},
	} {
		if got := recovered(story.span); got != story.want {
			t.Errorf("%s: %v", story.name, got)
		}
	}
}
