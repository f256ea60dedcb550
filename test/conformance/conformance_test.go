package conformance

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

const listing = `
test GatewayClassObservedGenerationBump Gateway
test HTTPRouteMatching Gateway HTTPRoute
test HTTPRouteCORS Gateway HTTPRoute HTTPRouteCORS
test HTTPRouteRedirectPort Gateway HTTPRoute HTTPRoutePortRedirect
test GRPCRouteWeight Gateway GRPCRoute
PASS
`

func examplePlan() testPlan {
	return planOf(parseTests(listing), []string{"Gateway", "HTTPRoute", "ReferenceGrant", "HTTPRoutePortRedirect"})
}

func TestPlan(t *testing.T) {
	p := examplePlan()
	if len(p.run) != 3 || p.core != 2 || p.extended != 1 {
		t.Errorf("%d run, %d core, %d extended; want 3, 2, 1", len(p.run), p.core, p.extended)
	}
	if got := p.skipped["HTTPRouteCORS"]; !slices.Equal(got, []string{"HTTPRouteCORS"}) {
		t.Errorf("skipped without HTTPRouteCORS: %v", got)
	}
	if got := p.skipped["GRPCRoute"]; !slices.Equal(got, []string{"GRPCRouteWeight"}) {
		t.Errorf("skipped without GRPCRoute: %v", got)
	}
}

// output is what a suite's program prints under -test.v=test2json: the marker
// is shown as ^ here.
const output = `
^=== RUN   TestConformance
    conformance.go:1: set-up
^=== RUN   TestConformance/GatewayClassObservedGenerationBump
^=== PAUSE TestConformance/GatewayClassObservedGenerationBump
^=== RUN   TestConformance/HTTPRouteMatching
    conformance.go:2: Applying tests/httproute-matching.yaml
^=== RUN   TestConformance/HTTPRouteMatching/0_request_to_root
    http.go:3: a request failed
^--- FAIL: TestConformance/HTTPRouteMatching/0_request_to_root (0.01s)
^=== NAME  TestConformance/HTTPRouteMatching
^--- FAIL: TestConformance/HTTPRouteMatching (0.12s)
^=== RUN   TestConformance/HTTPRouteCORS
    conformance.go:4: Skipping HTTPRouteCORS: suite does not support HTTPRouteCORS
^--- SKIP: TestConformance/HTTPRouteCORS (0.00s)
^=== CONT  TestConformance/GatewayClassObservedGenerationBump
    conformance.go:5: Applying tests/gatewayclass.yaml
printed without an end of line^--- PASS: TestConformance/GatewayClassObservedGenerationBump (1.50s)
^=== NAME  TestConformance
^--- FAIL: TestConformance (2.00s)
`

func TestRecorder(t *testing.T) {
	var out, log, failures strings.Builder
	r := newRecorder(examplePlan(), &out, &log)
	testkit.Must(t, r.read(strings.NewReader(strings.ReplaceAll(output, "^", marker))))
	want := `1 of 3: HTTPRouteMatching ...
  HTTPRouteMatching: FAILED (0.12s)
2 of 3: GatewayClassObservedGenerationBump ...
  GatewayClassObservedGenerationBump: passed (1.50s)
`
	if out.String() != want {
		t.Errorf("printed:\n%swant:\n%s", &out, want)
	}
	if got := r.notPassed(); !slices.Equal(got, []string{"HTTPRouteMatching", "HTTPRouteRedirectPort"}) {
		t.Errorf("not passed: %v; a failed test and one without a result do not pass", got)
	}
	r.printFailures(&failures)
	if !strings.Contains(failures.String(), "a request failed") {
		t.Errorf("failures lack the failed test's output:\n%s", &failures)
	}
	if strings.Contains(log.String(), marker) || !strings.Contains(log.String(), "set-up") {
		t.Errorf("log:\n%s", &log)
	}
}

const goodReport = `
gatewayAPIVersion: v1.6.3
profiles:
- name: GATEWAY-HTTP
  core: {result: success, statistics: {Passed: 2, Failed: 0, Skipped: 0}}
  extended:
    result: success
    statistics: {Passed: 1, Failed: 0, Skipped: 0}
    supportedFeatures: [HTTPRoutePortRedirect]
`

func TestReport(t *testing.T) {
	claimed := []string{"Gateway", "HTTPRoute", "ReferenceGrant", "HTTPRoutePortRedirect"}
	for _, c := range []struct{ name, old, new, want string }{
		{"complete", "", "", ""},
		{"failed test", "Passed: 2, Failed: 0", "Passed: 1, Failed: 1", "core: "},
		{"tests missing from the report", "Passed: 1,", "Passed: 0,", "extended: "},
		{"skipped test", "result: success\n", "result: partial\n", "extended: partial"},
		{"claimed feature missing", "[HTTPRoutePortRedirect]", "[]", "HTTPRoutePortRedirect"},
		{"another profile", "GATEWAY-HTTP", "GATEWAY-TLS", "GATEWAY-HTTP alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "report.yaml")
			testkit.Must(t, os.WriteFile(file, []byte(strings.Replace(goodReport, c.old, c.new, 1)), 0o644))
			r, err := readReport(file)
			testkit.Must(t, err)
			err = r.check(examplePlan(), claimed)
			if c.want == "" && err != nil {
				t.Error(err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// A run whose suite wrote no report fails, also if every test passed.
func TestMissingReport(t *testing.T) {
	r := newRecorder(testPlan{}, io.Discard, io.Discard)
	err := finish(Config{Out: io.Discard, Report: filepath.Join(t.TempDir(), "none.yaml")}, r, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "no report") {
		t.Errorf("error: %v", err)
	}
}
