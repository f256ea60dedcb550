//go:build !faults

package main

import (
	"flag"
	"testing"
)

// A shipped hub has no flag that switches mechanisms off.
func TestNoFaultsInAShippedHub(t *testing.T) {
	var o Options
	flags := flag.NewFlagSet("hub", flag.ContinueOnError)
	o.Bind(flags)
	if flags.Lookup("disable") != nil {
		t.Error("there is a flag --disable")
	}
}
