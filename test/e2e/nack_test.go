package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/demo"
	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// heavyRoute has a pattern that the hub takes for good, and that an Envoy with
// RE2's own default limit refuses: a program of more than 100 instructions.
const heavyRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: heavy, namespace: shop}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [store.example.com]
  rules:
  - matches: [{path: {type: RegularExpression, value: "%s"}}]
    backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 8080}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Version, value: %s}]}}]
`

// besideRoute is a neighbour on the same Gateway, port and hostname.
const besideRoute = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: beside, namespace: shop}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [store.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /beside}}]
    backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 8080}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Version, value: %s}]}}]
`

// One Envoy of two in eu has a lower RE2 limit than the hub assumes, and really
// refuses a route. It keeps that route's last generation, and all other edges get
// the present one: the EdgePool says so, and the route is accepted. Its neighbours on
// the same Gateway, port and hostname go on changing on the strict edge, too, also
// after the hub restarted. Mending the route ends it.
func TestRefusalByAnEdgeIsItsOwn(t *testing.T) {
	loaded(t, story.Client("eu", "store.example.com", 60), 1000, func() {
		heavy, pool := object{"hub", "httproute", "shop", "heavy"}, object{"hub", "edgepool", "", "eu"}
		apply(t, story.Lab.Hub, fmt.Sprintf(heavyRoute, "/heavy/[a-z]+", "light"))
		arrives(t, "eu", "heavy/light", "light")
		strict := strictEdge(t)
		has := func(text string) {
			t.Helper()
			eventually(t, "the strict edge itself to have "+text, func() (bool, string) {
				dump := admin(t, strict, "/config_dump?resource=dynamic_route_configs")
				return strings.Contains(dump, text), fmt.Sprintf("%s of %d bytes, and %s", admin(t, strict, "/stats?filter=rds.*update_rejected"), len(dump), conditionsOf(t, pool))
			})
		}
		has("/heavy/[a-z]+")
		before := metric(t, "crossway_gateway_nacks_total")
		const tooBig = "/heavy/[a-z]{150}"
		check(t, story.Lab.Hub.Apply(t.Context(), fmt.Appendf(nil, heavyRoute, tooBig, "heavy")))
		says(t, pool, "ConfigurationAccepted=False RejectedByEdge", strict.Name, "HTTPRoute shop/heavy")
		says(t, heavy, "Accepted=True")
		for _, line := range conditionsOf(t, heavy) {
			if strings.Contains(line, "Refused") || strings.Contains(line, "PartiallyInvalid") {
				t.Errorf("one edge's refusal is held against the route: %s", line)
			}
		}
		arrives(t, "us", "heavy/"+strings.Repeat("a", 150), "heavy")
		if after := metric(t, "crossway_gateway_nacks_total"); after <= before {
			t.Errorf("the refusal is not counted: %v, then %v", before, after)
		}

		keeps := func() {
			t.Helper()
			has("/heavy/[a-z]+")
			if strings.Contains(admin(t, strict, "/config_dump?resource=dynamic_route_configs"), tooBig) {
				t.Error("the strict edge has what it refuses")
			}
		}
		apply(t, story.Lab.Hub, fmt.Sprintf(besideRoute, "first"))
		arrives(t, "eu", "beside", "first")
		check(t, story.Lab.Hub.Apply(t.Context(), fmt.Appendf(nil, besideRoute, "second")))
		arrives(t, "eu", "beside", "second")
		has("second")
		keeps()

		check(t, story.KillHub(t.Context(), time.Second))
		time.Sleep(2 * time.Second)
		check(t, story.AwaitConnected(t.Context()))
		check(t, story.Lab.Hub.Apply(t.Context(), fmt.Appendf(nil, besideRoute, "third")))
		arrives(t, "eu", "beside", "third") // the new hub has built
		has("third")
		keeps()

		check(t, story.Lab.Hub.Apply(t.Context(), fmt.Appendf(nil, heavyRoute, "/heavy/[0-9]+", "mended")))
		says(t, pool, "ConfigurationAccepted=True")
		arrives(t, "eu", "heavy/1", "mended")
		has("/heavy/[0-9]+")
	})
}

// arrives waits until clients of a region see a version under a path of store.
func arrives(t *testing.T, region, path, version string) {
	t.Helper()
	config := story.Client(region, "store.example.com", 20)
	config.URL += path
	check(t, story.Await(t.Context(), config, "version "+version+" at /"+path, func(s load.Sample) bool { return s.Version == version }))
}

// strictEdge replaces one edge of eu by one with RE2's default limit, and at
// the end of the test that one by an ordinary edge.
func strictEdge(t *testing.T) demo.Edge {
	t.Helper()
	setLimit := func(ctx context.Context, from, to string) error {
		maps := story.Lab.Hub.Client.CoreV1().ConfigMaps(lab.System)
		m, err := maps.Get(ctx, "crossway-edge-eu", metav1.GetOptions{})
		if err != nil {
			return err
		}
		const key = "re2.max_program_size.error_level: "
		changed := strings.Replace(m.Data["bootstrap.yaml"], key+from+"\n", key+to+"\n", 1)
		if changed == m.Data["bootstrap.yaml"] {
			return fmt.Errorf("the bootstrap has no %s%s", key, from)
		}
		m.Data["bootstrap.yaml"] = changed
		_, err = maps.Update(ctx, m, metav1.UpdateOptions{})
		return err
	}
	replace := func(ctx context.Context, e demo.Edge) error {
		if err := story.Lab.Hub.Client.CoreV1().Pods(e.Namespace).Delete(ctx, e.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		return story.AwaitEdges(ctx, "eu", e.Name)
	}
	old := edgesOf(t, "eu")
	var strict demo.Edge
	restore(t, func(ctx context.Context) error {
		if strict.Name == "" {
			return nil
		}
		return replace(ctx, strict)
	})
	check(t, setLimit(t.Context(), "3000", "100"))
	err := replace(t.Context(), old[0])
	check(t, setLimit(t.Context(), "100", "3000"))
	check(t, err)
	for _, e := range edgesOf(t, "eu") {
		if !slices.Contains(old, e) {
			strict = e
			return e
		}
	}
	t.Fatal("no edge is new")
	return demo.Edge{}
}

// metric is the sum of a metric of the hub over its labels and replicas.
func metric(t *testing.T, name string) float64 {
	t.Helper()
	hubs, err := story.Hubs(t.Context())
	check(t, err)
	sum := 0.0
	for _, hub := range hubs {
		metrics, err := story.HubMetrics(t.Context(), hub)
		check(t, err)
		for series, value := range metrics {
			if base, _, _ := strings.Cut(series, "{"); base == name {
				sum += value
			}
		}
	}
	return sum
}
