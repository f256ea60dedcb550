//go:build !faults

package main

import (
	"flag"

	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// faults does nothing. In a build with the tag faults (faults.go) it can switch mechanisms off, for tests.
type faults struct{}

func (*faults) bind(*flag.FlagSet) {}

func (*faults) validate() error { return nil }

func (*faults) config(c server.Config) server.Config { return c }

func (*faults) assigner(a reconciler.Assigner) reconciler.Assigner { return a }

func (*faults) publisher(p reconciler.Publisher) reconciler.Publisher { return p }

func (*faults) observer(o server.Observer) server.Observer { return o }
