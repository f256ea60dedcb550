package main

import (
	"context"
	"io"

	ctrl "sigs.k8s.io/controller-runtime"

	"crossway.dev/crossway/pkg/program"
)

const name = "crossway-member-agent"

func main() { program.Main(name, run) }

// run is the program: it ends when ctx does, or with what keeps it from running.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	var options Options
	log, err := program.Parse(name, &options, args, stderr)
	if err != nil {
		return err
	}
	mgr, err := wire(options)
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.LoggerInto(ctx, log))
}
