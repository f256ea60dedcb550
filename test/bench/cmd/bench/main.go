// Command bench measures on a lab what changes cost, and writes the figures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/test/bench"
	"crossway.dev/crossway/test/bench/membership"
	"crossway.dev/crossway/test/bench/request"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == membership.NodeFlag {
		if err := membership.RunNode(context.Background(), os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	out := flag.String("out", "out/bench.json", "file for the figures")
	sizes := flag.String("sizes", "10,100,1000", "comma list of numbers of routes, each with an import of 150 endpoints")
	parts := flag.String("parts", strings.Join(bench.Parts, ","), "comma list of what to measure")
	logs := flag.String("logs", "", "directory to keep the logs of all programs in; empty: they go with the lab")
	members := flag.Int("members", 100, "members of part scale, from 10 to 250")
	profiles := flag.String("profiles", "", "directory for profiles of the hub in part scale; empty: none")
	rows := flag.String("requests", "", "regular expression for the comparisons of part request; empty: all")
	flag.Parse()
	o := options{out: *out, sizes: *sizes, parts: strings.Split(*parts, ","), logs: *logs, members: *members, profiles: *profiles}
	if slices.ContainsFunc(o.parts, needsLab) {
		lab.Enter(lab.Entry{})
	}
	ctrl.SetLogger(logr.Discard()) // clients of controller-runtime ask for one
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *rows); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

type options struct {
	out, sizes, logs, profiles string
	members                    int
	parts                      []string
}

// run measures what requests cost, which needs no lab, and then the other parts on a lab.
func run(ctx context.Context, o options, rows string) error {
	sizes, err := parse(o.sizes)
	if err != nil {
		return err
	}
	r := result{Machine: fmt.Sprintf("%d CPUs, %s", runtime.NumCPU(), runtime.Version()), Load: loadAverage()}
	if slices.Contains(o.parts, bench.RequestPart) {
		if r.Requests, err = requests(ctx, rows); err != nil {
			return err
		}
		if err := write(o.out, r); err != nil {
			return err
		}
	}
	if slices.Contains(o.parts, bench.MembershipPart) {
		if r.Membership, err = members(ctx); err != nil {
			return err
		}
		if err := write(o.out, r); err != nil {
			return err
		}
	}
	scale := slices.Contains(o.parts, bench.ScalePart)
	o.parts = slices.DeleteFunc(o.parts, func(part string) bool { return !needsLab(part) || part == bench.ScalePart })
	if len(o.parts) > 0 {
		if err := onLab(ctx, o, sizes, &r); err != nil {
			return err
		}
	}
	if scale {
		return atScale(ctx, o, &r)
	}
	return nil
}

// atScale measures the part with many members, on a lab of its own.
func atScale(ctx context.Context, o options, r *result) error {
	if o.members < 10 || o.members > 250 {
		return fmt.Errorf("--members: %d is not from 10 to 250", o.members)
	}
	config := bench.ScaleLabConfig()
	config.LogDir = o.logs
	fleet, err := lab.Start(ctx, config, os.Stdout)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if err := fleet.Install(ctx, bench.ScaleLabInstall()); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s, err := bench.NewScale(ctx, fleet, o.members, o.profiles, os.Stdout)
	if err != nil {
		return err
	}
	began := time.Now()
	r.Scale, err = s.Measure(ctx)
	r.Load = loadAverage()
	if err := errors.Join(err, write(o.out, *r), bench.ScaleTable(os.Stdout, o.members, r.Scale)); err != nil {
		return err
	}
	fmt.Printf("\n%d members measured in %s; figures in %s\n", o.members, time.Since(began).Round(time.Second), o.out)
	return nil
}

// needsLab is whether a part is about a fleet in the lab.
func needsLab(part string) bool { return part != bench.RequestPart && part != bench.MembershipPart }

// members measures gossip, which needs no lab.
func members(ctx context.Context) ([]membership.Row, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	rows, err := membership.Measure(ctx, membership.Options{Program: program, Members: 100, Deaths: 5}, os.Stdout)
	return rows, errors.Join(err, membership.Table(os.Stdout, rows))
}

// requests measures the part that needs no lab.
func requests(ctx context.Context, pattern string) ([]request.Row, error) {
	selected, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("--requests: %w", err)
	}
	programs, err := install.Ensure(ctx, os.Stdout)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	rows, err := request.Measure(ctx, programs, selected.MatchString)
	if err != nil {
		return nil, err
	}
	fmt.Printf("what requests cost (%s)\n\n", time.Since(began).Round(time.Second))
	return rows, request.Table(os.Stdout, rows)
}

// onLab measures the parts that are about a fleet.
func onLab(ctx context.Context, o options, sizes []int, r *result) error {
	config := bench.LabConfig()
	config.LogDir = o.logs
	fleet, err := lab.Start(ctx, config, os.Stdout)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if err := fleet.Install(ctx, bench.LabInstall()); err != nil {
		return err
	}
	b, err := bench.New(ctx, fleet, os.Stdout)
	if err != nil {
		return err
	}
	began := time.Now()
	all := map[string]bench.Figures{}
	r.Sizes = all
	for _, n := range sizes {
		figures, err := b.Measure(ctx, n, o.parts)
		all[strconv.Itoa(n)] = figures
		r.Load = loadAverage()
		if err := errors.Join(err, write(o.out, *r)); err != nil {
			return err
		}
	}
	fmt.Printf("\nmeasured in %s; figures in %s\n\n", time.Since(began).Round(time.Second), o.out)
	return bench.Table(os.Stdout, sizes, all)
}

// parse reads ascending sizes.
func parse(list string) ([]int, error) {
	var sizes []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > 1000 {
			return nil, fmt.Errorf("--sizes: %q is not a number from 1 to 1000", text)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	return slices.Compact(sizes), nil
}

// result is the file that is written.
type result struct {
	Machine string                   `json:"machine"`
	Load    string                   `json:"load_average_at_end"` // the bench's own programs included
	Sizes   map[string]bench.Figures `json:"sizes,omitempty"`
	// Scale are the figures of many members behind two hub replicas.
	Scale bench.Figures `json:"scale,omitempty"`
	// Requests are what a request costs an edge, beside a static Envoy.
	Requests []request.Row `json:"requests,omitempty"`
	// Membership is how soon who is alive is known, and what that costs.
	Membership []membership.Row `json:"membership,omitempty"`
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.TrimSpace(string(text))
}

func write(out string, r result) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644)
}
