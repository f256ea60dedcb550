package demo

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

// good has every figure in the middle of its bound.
func good() Figures {
	f := Figures{}
	for _, b := range Bounds {
		f[b.Figure] = slices.Clone(b.Low)
	}
	return f
}

func passed(t *testing.T, f Figures) bool {
	t.Helper()
	out, err := f.JSON()
	testkit.Must(t, err)
	var result struct {
		Passed bool `json:"passed"`
	}
	testkit.Must(t, json.Unmarshal(out, &result))
	if result.Passed != (len(Judge(f)) == 0) {
		t.Fatalf("out/demo.json says passed=%v, the exit status says %v", result.Passed, Judge(f))
	}
	return result.Passed
}

// A figure just beyond either end of its bound makes the demo fail.
func TestEachBoundDecides(t *testing.T) {
	if !passed(t, good()) {
		t.Fatalf("figures on their bounds must pass: %v", Judge(good()))
	}
	for _, b := range Bounds {
		for i := range b.Low {
			for _, past := range []float64{math.Nextafter(b.Low[i], math.Inf(-1)), math.Nextafter(b.High[i], math.Inf(1)), math.NaN()} {
				if math.IsInf(past, 1) || math.IsInf(b.High[i], 1) && past > b.Low[i] {
					continue // no bound on this side
				}
				f := good()
				f[b.Figure][i] = past
				if passed(t, f) {
					t.Errorf("%s[%d] = %v passes its bound %s", b.Figure, i, past, b.Expected())
				}
			}
			f := good()
			f[b.Figure][i] = b.High[i]
			if !math.IsInf(b.High[i], 1) && !passed(t, f) {
				t.Errorf("%s[%d] = %v is on its bound and must pass", b.Figure, i, b.High[i])
			}
		}
		f := good()
		delete(f, b.Figure)
		if passed(t, f) {
			t.Errorf("%s was not measured, and the demo passes", b.Figure)
		}
	}
}

func TestBoundsNameEachFigureOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range Bounds {
		if seen[b.Figure] || len(b.Low) != len(b.High) || len(b.Low) == 0 {
			t.Errorf("bound of %s is given twice or malformed", b.Figure)
		}
		seen[b.Figure] = true
	}
}
