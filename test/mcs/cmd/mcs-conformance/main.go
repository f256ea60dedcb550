// Command mcs-conformance runs the official conformance suite of the Multi-Cluster
// Services API against a lab of its own. Its arguments are further flags of the suite,
// like -ginkgo.focus.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/test/mcs"
)

func main() {
	lab.Enter(lab.Entry{Prepare: mcs.Prepare})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	err := mcs.Run(ctx, mcs.Config{Dir: filepath.Join("out", "mcs-conformance"), Out: os.Stdout, Args: os.Args[1:]})
	fmt.Printf("mcs-conformance took %s\n", time.Since(begin).Round(time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, "mcs-conformance:", err)
		stop()
		os.Exit(1)
	}
}
