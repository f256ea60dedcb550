package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := run(ctrl.SetupSignalHandler(), os.Args[1:], os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
}

// run is the hub until ctx ends.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	var options Options
	flags := flag.NewFlagSet("hub", flag.ContinueOnError)
	flags.SetOutput(stderr)
	options.Bind(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: the hub takes flags only", flags.Arg(0))
	}
	if err := options.Validate(); err != nil {
		return err
	}
	level, _ := options.logLevel()
	log := logr.FromSlogHandler(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client-go"))
	tuneMemory()

	cluster, err := clusterConfig(options.Kubeconfig)
	if err != nil {
		return err
	}
	hub, err := wire(ctx, options, cluster)
	if err != nil {
		return err
	}
	return hub.Start(ctx)
}

// clusterConfig is how to reach the hub's API server. The limits are far above what a fleet writes at rest: 200 exports
// that come at once are some 600 writes, which client-go's default of 20 a second would draw out to half a minute.
func clusterConfig(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	} else {
		config, err = rest.InClusterConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("read the hub's cluster configuration (set --kubeconfig outside of a pod): %w", err)
	}
	config.QPS, config.Burst = 500, 1000
	config.UserAgent = "crossway-hub"
	return config, nil
}

// tuneMemory trades some CPU for memory: most of the hub's memory is the fleet's state, which lives long, so that half
// of Go's usual headroom is enough. GOGC and GOMEMLIMIT, where set, win.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}
