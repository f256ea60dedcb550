package main

import (
	"flag"
	"io"
	"strings"
	"testing"
)

func parse(t *testing.T, args ...string) Options {
	t.Helper()
	var o Options
	f := flag.NewFlagSet("hub", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.Bind(f)
	check(t, f.Parse(args))
	return o
}

// What the chart renders is good; each fault is told, all of them together.
func TestOptions(t *testing.T) {
	chart := []string{"--xds-addr=:18000", "--xds-names=crossway-hub.crossway-system.svc,10.0.0.7", "--metrics-addr=:8080", "--health-addr=:8081",
		"--leader-elect", "--namespace=crossway-system", "--region=", "--zone=", "--hub-cidrs=", "--log-level=info"}
	good := parse(t, chart...)
	check(t, good.Validate())

	bad := parse(t, append(chart, "--namespace=Not_One", "--region=US", "--zone=-a", "--xds-names=a_b,ok.example.com", "--xds-addr=18000",
		"--metrics-addr=:http", "--health-addr=:99999", "--hub-cidrs=10.0.0.0/8,10.1.0.0", "--log-level=loud", "--disable=all")...)
	err := bad.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{`--namespace "Not_One"`, `--region "US"`, `--zone "-a"`, `--xds-names: "a_b"`, `--xds-addr "18000"`, `--metrics-addr ":http"`,
		`--health-addr ":99999"`, `--hub-cidrs: "10.1.0.0"`, `--log-level "loud"`, `--disable: there is no mechanism "all"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not told in:\n%s", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 10 {
		t.Errorf("%d faults told, want 10:\n%s", n, err)
	}
	if none := parse(t); none.Validate() == nil || !strings.Contains(none.Validate().Error(), "--xds-names is empty") {
		t.Error("a hub whose certificate names nothing is accepted")
	}
}

// Arguments that are no flags are a mistake, not ignored.
func TestUnknownArgument(t *testing.T) {
	if err := run(t.Context(), []string{"--xds-names=hub", "serve"}, io.Discard); err == nil || !strings.Contains(err.Error(), `"serve"`) {
		t.Errorf("got %v", err)
	}
}
