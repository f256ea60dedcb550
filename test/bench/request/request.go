package request

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"time"

	"crossway.dev/crossway/internal/lab/install"
)

// Row is one comparison: what the second kind of Envoy takes, relative to the first.
type Row struct {
	Name string `json:"name"`
	// CPU for each request, throughput, and at half of the saturating rate the time of requests.
	CPU  spread `json:"cpu"`
	Rate spread `json:"rate"`
	P50  spread `json:"p50"`
	P99  spread `json:"p99"`
	// Micros of CPU for each request, of the first and the second.
	First  spread `json:"first_us"`
	Second spread `json:"second_us"`
	Pairs  int    `json:"pairs"`
}

// comparisons are what is measured, in the order in which it is told.
func comparisons() []comparison {
	all := []comparison{
		{name: "noise: static, static", first: static, second: static, load: plain, pairs: 8},
		{name: "static, edge", first: static, second: edge, load: plain, pairs: 8},
		{name: "noise at half: static, static", first: static, second: static, load: plain, pairs: 8, half: true},
		{name: "at half: static, edge", first: static, second: edge, load: plain, pairs: 8, half: true},
	}
	for _, l := range loads[1:] {
		all = append(all, comparison{name: "static, edge: " + l.name, first: static, second: edge, load: l, pairs: 4})
	}
	for _, s := range []site{{name: "1000 routes on one host", paths: 1000}, {name: "1000 hosts", hosts: 1000}} {
		all = append(all, comparison{name: "static, edge: " + s.name, first: static, second: edge, load: plain, site: s, against: s, pairs: 2},
			comparison{name: "edge: 10 hosts, " + s.name, first: edge, second: edge, load: plain, site: s, pairs: 2})
	}
	all = append(all, comparison{name: "noise: edge, edge", first: edge, second: edge, load: plain, pairs: 4})
	for _, v := range variants {
		all = append(all, comparison{name: "edge, without " + v.name, first: edge, second: v, load: plain, pairs: 4})
	}
	all = append(all, comparison{name: "edge, with statistics by status", first: edge, second: withStatistics, load: plain, pairs: 4},
		comparison{name: "edge, without limits of buffers: 64 KiB answers", first: edge, second: unbuffered, load: largeAnswers, pairs: 4})
	for i := range all {
		if all[i].site.name == "" {
			all[i].site = small
		}
		if all[i].against.name == "" {
			all[i].against = small
		}
	}
	return all
}

// duration of one pair's measurement.
const duration = 1500 * time.Millisecond

// Measure runs those of the comparisons whose names are selected.
func Measure(ctx context.Context, programs install.Programs, selected func(name string) bool) ([]Row, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("needs two processors")
	}
	for _, program := range []string{"h2load", "taskset", "/usr/sbin/nginx"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w (Debian: nghttp2-client, util-linux, nginx-light)", err)
		}
	}
	dir, err := os.MkdirTemp("", "crossway-request-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx gives up root's rights
		return nil, err
	}
	b := &bench{dir: dir, envoy: programs.Envoy, rate: map[string]float64{}}
	if b.certificate, err = newCertificate(); err != nil {
		return nil, err
	}
	if b.hub, err = startHub(ctx, programs.Helm); err != nil {
		return nil, err
	}
	defer b.hub.grpc.Stop()
	upstream, err := startUpstreams(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer upstream.stop()
	return b.all(ctx, selected)
}

// all runs the pairs of all comparisons in a random order, but first one of each load that is also run at half of its rate.
func (b *bench) all(ctx context.Context, selected func(string) bool) ([]Row, error) {
	list := comparisons()
	type turn struct{ comparison, pair int }
	var turns []turn
	for i, c := range list {
		if !selected(c.name) {
			continue
		}
		for n := range c.pairs {
			turns = append(turns, turn{i, n})
		}
		if c.half && b.rate[c.load.name] == 0 {
			_, sides, err := b.measure(ctx, comparison{first: static, second: static, load: c.load, site: small, against: small})
			if err != nil {
				return nil, err
			}
			b.rate[c.load.name] = (sides[0].sent.rate + sides[1].sent.rate) / 2
		}
	}
	rand.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	type got struct{ cpu, rate, p50, p99, first, second []float64 }
	results := make([]got, len(list))
	for _, t := range turns {
		p, sides, err := b.measure(ctx, list[t.comparison])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", list[t.comparison].name, err)
		}
		r := &results[t.comparison]
		r.cpu, r.rate, r.p50, r.p99 = append(r.cpu, p.cpu), append(r.rate, p.rate), append(r.p50, p.p50), append(r.p99, p.p99)
		r.first, r.second = append(r.first, sides[0].micros), append(r.second, sides[1].micros)
	}
	var rows []Row
	for i, c := range list {
		if r := results[i]; len(r.cpu) > 0 {
			rows = append(rows, Row{Name: c.name, CPU: spreadOf(r.cpu), Rate: spreadOf(r.rate), P50: spreadOf(r.p50), P99: spreadOf(r.p99),
				First: spreadOf(r.first), Second: spreadOf(r.second), Pairs: len(r.cpu)})
		}
	}
	return rows, nil
}

// Table writes the rows.
func Table(w io.Writer, rows []Row) error {
	_, err := fmt.Fprintf(w, "%-52s %5s  %-22s %-22s %-22s %-22s %s\n", "the second relative to the first", "pairs", "CPU a request", "throughput", "p50 at half", "p99 at half", "us of CPU")
	cell := func(s spread) string {
		if s.Median == 0 {
			return "-"
		}
		return fmt.Sprintf("%.3f [%.3f..%.3f]", s.Median, s.Min, s.Max)
	}
	for _, r := range rows {
		_, more := fmt.Fprintf(w, "%-52s %5d  %-22s %-22s %-22s %-22s %.1f, %.1f\n", r.Name, r.Pairs, cell(r.CPU), cell(r.Rate), cell(r.P50), cell(r.P99), r.First.Median, r.Second.Median)
		err = errors.Join(err, more)
	}
	return err
}
