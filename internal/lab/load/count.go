package load

import (
	"net/http"
	"slices"
	"time"
)

func sorted(samples []Sample) []Sample {
	out := slices.Clone(samples)
	slices.SortStableFunc(out, func(a, b Sample) int { return a.At.Compare(b.At) })
	return out
}

// Failed counts samples that are not a 200.
func Failed(samples []Sample) int {
	return len(samples) - Count(samples, func(s Sample) bool { return s.Status == http.StatusOK })
}

// Count counts the samples for which is returns true.
func Count(samples []Sample, is func(Sample) bool) int {
	n := 0
	for _, s := range samples {
		if is(s) {
			n++
		}
	}
	return n
}

// Between are the samples due from begin until before end.
func Between(samples []Sample, begin, end time.Time) []Sample {
	var out []Sample
	for _, s := range samples {
		if !s.At.Before(begin) && s.At.Before(end) {
			out = append(out, s)
		}
	}
	return out
}

// Part is the part, 0 to 1, of the answered samples that one of clusters gave.
// It is 0 where nothing was answered.
func Part(samples []Sample, clusters ...string) float64 {
	answered := Count(samples, func(s Sample) bool { return s.Status == http.StatusOK })
	if answered == 0 {
		return 0
	}
	theirs := Count(samples, func(s Sample) bool {
		return s.Status == http.StatusOK && slices.Contains(clusters, s.Cluster)
	})
	return float64(theirs) / float64(answered)
}

// SettledAfter is how long after begin the first window of one second starts
// from which every window of the next hold is good. Windows start every
// 100 ms. False where none is: the samples end too early, or never settle.
func SettledAfter(samples []Sample, begin time.Time, hold time.Duration, good func(window []Sample) bool) (time.Duration, bool) {
	const window, step = time.Second, 100 * time.Millisecond
	samples = sorted(samples)
	if len(samples) == 0 {
		return 0, false
	}
	last := samples[len(samples)-1].At
	settled := time.Duration(-1)
	for at := time.Duration(0); !begin.Add(at + window).After(last); at += step {
		switch ok := good(Between(samples, begin.Add(at), begin.Add(at+window))); {
		case !ok:
			settled = -1
		case settled < 0:
			settled = at
		}
		if settled >= 0 && at+window-settled >= hold {
			return settled, true
		}
	}
	return 0, false
}

// FirstSpan is how long after begin the first span starts that is
// good as a whole. Spans start every 100 ms. False where none is before the samples end.
func FirstSpan(samples []Sample, begin time.Time, span time.Duration, good func(span []Sample) bool) (time.Duration, bool) {
	samples = sorted(samples)
	if len(samples) == 0 {
		return 0, false
	}
	last := samples[len(samples)-1].At
	for at := time.Duration(0); !begin.Add(at + span).After(last); at += 100 * time.Millisecond {
		if good(Between(samples, begin.Add(at), begin.Add(at+span))) {
			return at, true
		}
	}
	return 0, false
}
