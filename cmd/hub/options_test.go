package main

import (
	"flag"
	"io"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

func parse(t *testing.T, args ...string) Options {
	t.Helper()
	var o Options
	f := flag.NewFlagSet("hub", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.Bind(f)
	testkit.Must(t, f.Parse(args))
	return o
}

// What the chart renders is valid. Validate returns all faults together.
func TestOptions(t *testing.T) {
	chart := []string{"--xds-addr=:18000", "--xds-names=crossway-hub.crossway-system.svc,10.0.0.7", "--metrics-addr=:8080", "--health-addr=:8081",
		"--leader-elect", "--namespace=crossway-system", "--region=", "--zone=", "--hub-cidrs=10.10.0.0/16,10.96.0.0/12", "--secret-namespaces=infra,shop"}
	good := parse(t, chart...)
	testkit.Must(t, good.Validate())

	bad := parse(t, append(chart, "--namespace=Not_One", "--region=US", "--zone=-a", "--xds-names=a_b,ok.example.com", "--xds-addr=18000",
		"--metrics-addr=:http", "--health-addr=:99999", "--hub-cidrs=10.0.0.0/8,10.1.0.0", "--secret-namespaces=Shop", "--debug-address=:6060", "--max-edges=0")...)
	err := bad.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{`--namespace "Not_One"`, `--region "US"`, `--zone "-a"`, `--xds-names: "a_b"`, `--xds-addr "18000"`, `--metrics-addr ":http"`,
		`--health-addr ":99999"`, `--hub-cidrs: "10.1.0.0"`, `--secret-namespaces: "Shop"`, `--debug-address ":6060" is not a loopback address`, `--max-edges 0: use 1 to 250`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in:\n%s", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 11 {
		t.Errorf("%d faults, want 11:\n%s", n, err)
	}
	if none := parse(t); none.Validate() == nil || !strings.Contains(none.Validate().Error(), "--hub-cidrs is empty") {
		t.Error("a hub that reserves no range is accepted")
	}
	if none := parse(t); none.Validate() == nil || !strings.Contains(none.Validate().Error(), "--xds-names is empty") {
		t.Error("a hub whose certificate names nothing is accepted")
	}
}

// Arguments that are not flags are an error.
func TestUnknownArgument(t *testing.T) {
	if err := run(t.Context(), []string{"--xds-names=hub", "--hub-cidrs=10.96.0.0/12", "serve"}, io.Discard); err == nil || !strings.Contains(err.Error(), `"serve"`) {
		t.Errorf("got %v", err)
	}
}

// --debug-address takes loopback addresses only, and is off by default.
func TestDebugAddress(t *testing.T) {
	for address, ok := range map[string]bool{"": true, "127.0.0.1:6060": true, "[::1]:6060": true, "localhost:6060": true,
		":6060": false, "0.0.0.0:6060": false, "10.0.0.1:6060": false, "hub.example.com:6060": false, "127.0.0.1": false, "127.0.0.1:x": false, "127.0.0.1:": false, "[::1]:65536": false} {
		o := parse(t, "--xds-names=hub", "--hub-cidrs=10.96.0.0/12", "--debug-address="+address)
		if err := o.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
	if o := parse(t); o.DebugAddr != "" {
		t.Errorf("by default %q", o.DebugAddr)
	}
}
