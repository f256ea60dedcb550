package membership

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// row is the median and the maximum of times.
func row(name, tell string, samples []time.Duration) Row {
	r := Row{Name: name, Tell: fmt.Sprintf("%s (%d)", tell, len(samples))}
	if len(samples) > 0 {
		sorted := slices.Sorted(slices.Values(samples))
		r.Value, r.Worst = millis(sorted[len(sorted)/2]), millis(sorted[len(sorted)-1])
	}
	return r
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

func round(v float64) float64 { return math.Round(v*10) / 10 }

// Table writes the figures for people.
func Table(out io.Writer, rows []Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "membership\tp50\tmax\twhat")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%g\t%g\t%s\n", r.Name, r.Value, r.Worst, r.Tell)
	}
	return w.Flush()
}
