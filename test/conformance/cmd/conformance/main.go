// Command conformance runs the official conformance suite of the Gateway API
// against a lab of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/test/conformance"
)

func main() {
	cfg := conformance.Config{Out: os.Stdout}
	flag.BoolVar(&cfg.Core, "core", false, "claim the profile's core features only")
	flag.StringVar(&cfg.Test, "test", "", "name of one test of the suite to run alone, without a report")
	out := flag.String("out", "out", "directory for the report, the suite's output and the lab's logs")
	i := &cfg.Implementation
	flag.StringVar(&i.Organization, "organization", "crossway", "organization in the report")
	flag.StringVar(&i.Project, "project", "crossway", "project in the report")
	flag.StringVar(&i.URL, "url", "https://crossway.dev/crossway", "URL in the report")
	flag.StringVar(&i.Contact, "contact", "https://crossway.dev/crossway", "contact in the report")
	flag.StringVar(&i.Version, "version", "", "version in the report; empty: the commit of the working tree")
	flag.Parse()
	lab.Enter(lab.Entry{Prepare: conformance.Prepare})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := "conformance"
	if cfg.Core {
		name += "-core"
	}
	cfg.Report, cfg.Log, cfg.LogDir = filepath.Join(*out, name+".yaml"), filepath.Join(*out, name+".log"), filepath.Join(*out, name+"-logs")
	if i.Version == "" {
		i.Version = commit(ctx)
	}
	begin := time.Now()
	err := conformance.Run(ctx, cfg)
	fmt.Printf("%s took %s\n", name, time.Since(begin).Round(time.Second))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		stop()
		os.Exit(1)
	}
}

// commit names the commit of the working tree, with "-dirty" where files differ
// from it.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
