// Command demo starts a whole fleet on this machine, shows Crossway on
// it with measured figures, and writes them to a file. Its exit status is 0
// exactly when every bound holds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"crossway.dev/crossway/internal/demo"
	"crossway.dev/crossway/internal/lab"
)

func main() {
	out := flag.String("out", "out/demo.json", "file for the figures")
	only := flag.String("steps", "", "comma list of steps to run; empty: the whole story (only the whole story can pass)")
	logs := flag.String("logs", "", "directory to keep the logs of all programs in; empty: they go with the lab")
	hub := flag.String("hub-values", "", "YAML values for charts/hub, for instance 'logLevel: debug'")
	drain := flag.Duration("drain-over", demo.Full.Drain, "time in which a cluster is drained, and in which it gets its requests back")
	flag.Parse()
	lab.Enter(lab.Entry{HubNext: true})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *only, *logs, *drain, lab.InstallOptions{Hub: *hub}); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, out, only, logs string, drain time.Duration, options lab.InstallOptions) error {
	began := time.Now()
	fleet, err := lab.Start(ctx, lab.Config{LogDir: logs}, os.Stdout)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if err := fleet.Install(ctx, options); err != nil {
		return err
	}
	story := demo.New(fleet, os.Stdout)
	story.Times.Drain = drain
	if err := story.SetUp(ctx); err != nil {
		return err
	}
	var failed []error
	for _, step := range demo.Steps {
		if only != "" && !slices.Contains(strings.Split(only, ","), step.Name) {
			continue
		}
		if err := story.Tell(ctx, step); err != nil {
			fmt.Fprintln(os.Stdout, "  ", err)
			failed = append(failed, err)
		}
	}
	if err := write(out, story.Figures); err != nil {
		return err
	}
	broken := demo.Judge(story.Figures)
	fmt.Printf("\n%d of %d bounds hold; %s; figures in %s\n", len(demo.Bounds)-len(broken), len(demo.Bounds), time.Since(began).Round(time.Second), out)
	for _, b := range broken {
		fmt.Println("  ", b)
	}
	if len(broken) > 0 {
		failed = append(failed, fmt.Errorf("%d bounds do not hold", len(broken)))
	}
	return errors.Join(failed...)
}

func write(out string, figures demo.Figures) error {
	data, err := figures.JSON()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}
