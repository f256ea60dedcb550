package main

import (
	"context"
	"io"
	"os"
	"runtime/debug"

	"crossway.dev/crossway/pkg/program"
)

const name = "crossway-hub"

func main() { program.Main(name, run) }

// run is the program. It ends when ctx does, or with an error.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	var options Options
	if _, err := program.Parse(name, &options, args, stderr); err != nil {
		return err
	}
	// The limits are far above what a fleet writes at rest: 200 exports that come at once are some 600 writes, which
	// client-go's default of 5 a second would draw out to minutes.
	cluster, err := program.Client{UserAgent: name, QPS: 500, Burst: 1000}.Config("--kubeconfig", options.Kubeconfig)
	if err != nil {
		return err
	}
	hub, drain, err := wire(options, cluster)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	context.AfterFunc(ctx, func() {
		drain.run(running)
		stop()
	})
	return hub.Start(running)
}

// tuneMemory trades some CPU for memory: most of the hub's memory is the fleet's state, which lives long, so that half
// of Go's usual headroom is enough. GOGC has precedence. It is called after the first Build: while that state is read, most
// of what is collected is the state itself, again and again.
func tuneMemory() error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	return nil
}
