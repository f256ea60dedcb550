package request

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/internal/lab/install"
)

// summary is what h2load prints.
const summary = `
finished in 1.50s, 2230.67 req/s, 588.16KB/s
requests: 3346 total, 3354 started, 3346 done, 3346 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3346 2xx, 0 3xx, 0 4xx, 0 5xx
`

func TestParse(t *testing.T) {
	if got, err := parse(summary); err != nil || got.requests != 3346 || got.rate != 2230.67 {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "finished in 1s, 5 req/s\nrequests: 9 total, 9 started, 9 done, 5 succeeded, 4 failed, 0 errored, 0 timeout\nstatus codes: 5 2xx, 0 3xx, 4 4xx, 0 5xx\n"} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q gives %+v, want an error", bad, got)
		}
	}
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 200 {
		times = append(times, time.Duration(i+1))
	}
	if p50, p99 := percentile(times, 50), percentile(times, 99); p50 != 100 || p99 != 198 {
		t.Errorf("got %d, %d, want the 100th and the 198th", p50, p99)
	}
}

func TestSpread(t *testing.T) {
	values := []float64{3, 1, 2, 9}
	if got, want := spreadOf(values), (spread{2.5, 1, 9}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if !slices.Equal(values, []float64{3, 1, 2, 9}) {
		t.Error("the input was sorted in place")
	}
}

// Every site has all of its routes, within the budgets of its Gateway and namespaces.
func TestSites(t *testing.T) {
	certificate, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range comparisons() {
		if _, err := c.site.program("us", "127.0.0.1", certificate); err != nil {
			t.Errorf("%s: %v", c.site.name, err)
		}
	}
}

// Envoy takes the static bootstrap.
func TestStaticBootstrap(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an Envoy: run without -short")
	}
	program, err := install.Envoy(t.Context(), os.Stderr)
	if err != nil {
		t.Skipf("no Envoy: %v", err)
	}
	certificate, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"site.crt": certificate.Data[corev1.TLSCertKey], "site.key": certificate.Data[corev1.TLSPrivateKeyKey],
		"bootstrap.yaml": []byte(site{paths: 3}.staticBootstrap("127.0.0.1", dir))} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), program, "--mode", "validate", "-c", filepath.Join(dir, "bootstrap.yaml"), "-l", "error").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
