package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "member-agent:", err)
		os.Exit(1)
	}
}

// run is the program: it ends when ctx does, or with what keeps it from running.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	var options Options
	flags := flag.NewFlagSet("member-agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	options.Bind(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	if err := options.Validate(); err != nil {
		return err
	}
	logger := logr.FromSlogHandler(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: options.level()}))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	mgr, err := wire(options)
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.LoggerInto(ctx, logger))
}
