// Command lab-install installs the programs that the lab needs and prints
// their places as shell assignments: `eval "$(lab-install)"`.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"crossway.dev/crossway/internal/lab/install"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	programs, err := install.Ensure(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-install:", err)
		stop()
		os.Exit(1)
	}
	fmt.Printf("KUBEBUILDER_ASSETS=%s\nENVOY=%s\nHELM=%s\n", programs.Dir, programs.Envoy, programs.Helm)
}
