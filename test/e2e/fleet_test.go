package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/demo"
	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// eventually asks until the answer is yes. How fast something is, the demo judges.
func eventually(t *testing.T, what string, ask func() (ok bool, seen string)) {
	t.Helper()
	testkit.EventuallySeen(t, what, func() (bool, any) { return ask() })
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clusterNamed(t *testing.T, name string) *lab.Cluster {
	t.Helper()
	c, err := story.Lab.Cluster(name)
	testkit.Must(t, err)
	return c
}

// restore puts back, when the test ends, what it changed for all.
func restore(t *testing.T, do func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute) // t's own has just ended
		defer cancel()
		if err := do(ctx); err != nil {
			t.Errorf("put back: %v", err)
		}
	})
}

// apply applies manifests, and deletes what they made when the test ends.
func apply(t *testing.T, c *lab.Cluster, manifests string) {
	t.Helper()
	restore(t, func(ctx context.Context) error { return c.Delete(ctx, []byte(manifests)) })
	testkit.Must(t, c.Apply(t.Context(), []byte(manifests)))
}

func kubectl(t *testing.T, c *lab.Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), nil, args...)
	testkit.Must(t, err)
	return out
}

// object names one object: cluster, kind, namespace and name.
type object struct{ Cluster, Kind, Namespace, Name string }

func (o object) String() string { return o.Cluster + ": " + o.Kind + " " + o.Namespace + "/" + o.Name }

// conditionsOf returns the conditions of an object, wherever in its status they are, as
// lines "Type=Status Reason: message".
func conditionsOf(t *testing.T, o object) []string {
	t.Helper()
	c := clusterNamed(t, o.Cluster)
	out, err := c.Kubectl(t.Context(), nil, "get", o.Kind, "-n", o.Namespace, o.Name, "-o", "json")
	if err != nil {
		return []string{err.Error()}
	}
	var document map[string]any
	testkit.Must(t, json.Unmarshal([]byte(out), &document))
	return conditionsIn(document["status"])
}

func conditionsIn(value any) (lines []string) {
	switch v := value.(type) {
	case map[string]any:
		if v["reason"] != nil && v["type"] != nil {
			return []string{fmt.Sprintf("%v=%v %v: %v", v["type"], v["status"], v["reason"], v["message"])}
		}
		for _, child := range v {
			lines = append(lines, conditionsIn(child)...)
		}
	case []any:
		for _, child := range v {
			lines = append(lines, conditionsIn(child)...)
		}
	}
	slices.Sort(lines)
	return lines
}

// says waits until an object has a condition that begins like verdict and whose
// message has all parts.
func says(t *testing.T, o object, verdict string, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s to say %s with %q", o, verdict, parts), func() (bool, string) {
		lines := conditionsOf(t, o)
		return slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, verdict) && !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
		}), strings.Join(lines, "\n")
	})
}

// loaded runs a story while a neighbour is loaded, and sees that the neighbour lost nothing.
func loaded(t *testing.T, config load.Config, fewest int, act func()) {
	t.Helper()
	recorder := load.Start(t.Context(), config)
	defer recorder.Stop()
	act()
	for len(recorder.Samples()) < fewest && t.Context().Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	lossless(t, recorder.Stop())
}

// lossless says which of the first few requests failed, and how.
func lossless(t *testing.T, samples []load.Sample) {
	t.Helper()
	shown := 0
	for _, s := range samples {
		if s.Status != 200 && shown < 5 {
			shown++
			t.Logf("failed at %s after %s: status %d %s", s.At.Format("15:04:05.000"), s.Took, s.Status, s.Error)
		}
	}
	if n := load.Failed(samples); n > 0 {
		t.Errorf("%d of %d requests of %s failed", n, len(samples), "the neighbour")
	}
}

// lastSeconds are the samples that were due in the last seconds.
func lastSeconds(samples []load.Sample, seconds int) []load.Sample {
	if len(samples) == 0 {
		return nil
	}
	last := samples[len(samples)-1].At
	return load.Between(samples, last.Add(-time.Duration(seconds)*time.Second), last)
}

// awaitPart waits until, over two seconds, the part that clusters answer is as expected.
func awaitPart(t *testing.T, recorder *load.Recorder, what string, is func(part float64) bool, clusters ...string) {
	t.Helper()
	eventually(t, what, func() (bool, string) {
		now := time.Now()
		window := load.Between(recorder.Samples(), now.Add(-2500*time.Millisecond), now.Add(-500*time.Millisecond))
		part := load.Part(window, clusters...)
		return len(window) > 0 && is(part), fmt.Sprintf("%.3f of %d requests", part, len(window))
	})
}

// edgesOf are the Envoys of a region; all where it is empty.
func edgesOf(t *testing.T, region string) []demo.Edge {
	t.Helper()
	edges, err := story.Edges(t.Context(), region)
	testkit.Must(t, err)
	if len(edges) == 0 {
		t.Fatal("no edges")
	}
	return edges
}

func admin(t *testing.T, e demo.Edge, page string) string {
	t.Helper()
	out, err := story.Admin(t.Context(), e, page)
	testkit.Must(t, err)
	return out
}

// routeTo is an HTTPRoute at the shared Gateway to one ServiceImport of its own namespace.
func routeTo(namespace, name, host, backend string, port int) string {
	return fmt.Sprintf(`
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [%s]
  rules:
  - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: %s, port: %d}]
`, name, namespace, host, backend, port)
}
