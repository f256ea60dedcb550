package e2e

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// A merely slow answer, 10 s, is the application's own affair: no timeout,
// retry or ejection cuts it, also while another cluster is cut off.
func TestSlowAnswersAreNotCut(t *testing.T) {
	config := story.Client("us", "store.example.com", 10)
	config.URL += "?delay=10s"
	config.Client.Timeout = time.Minute // an answer that was lost with the cluster is asked for again, and takes 10 s again
	calm := load.Run(t.Context(), config, 30)
	testkit.Must(t, story.Lab.Cut("us-east"))
	restore(t, func(context.Context) error { return story.Lab.Restore("us-east") })
	cut := load.Run(t.Context(), config, 30)
	for _, samples := range [][]load.Sample{calm, cut} {
		lossless(t, samples)
		if early := load.Count(samples, func(s load.Sample) bool { return s.Took < 10*time.Second }); early > 0 {
			t.Errorf("%d answers came before the pods gave them", early)
		}
	}
	if part := load.Part(cut, "us-east"); part > 0 {
		t.Errorf("a cluster that is cut off answered %.2f", part)
	}
	if load.Part(calm, "us-east") == 0 {
		t.Error("us-east answered nothing before it was cut off")
	}
}

// Green, a tenth of route login, lives in us-east alone. When that cluster is
// dead, its whole weight moves to blue, without a failed request, until it
// answers again.
func TestDeadClusterOfAWholeBackend(t *testing.T) {
	config := story.Client("us", "site.example.com", 150)
	config.URL += "login"
	recorder := load.Start(t.Context(), config)
	defer recorder.Stop()
	tenth := func(part float64) bool { return math.Abs(part-0.1) < 0.04 }
	awaitPart(t, recorder, "green to get its tenth", tenth, "us-east")
	restore(t, func(context.Context) error { return story.Lab.Restore("us-east") })
	testkit.Must(t, story.Lab.Cut("us-east"))
	awaitPart(t, recorder, "green's weight to move", func(part float64) bool { return part == 0 }, "us-east")
	time.Sleep(8 * time.Second) // of load on the other backend
	testkit.Must(t, story.Lab.Restore("us-east"))
	awaitPart(t, recorder, "green to get its tenth again", tenth, "us-east")
	samples := recorder.Stop()
	lossless(t, samples)
	if len(samples) < 1000 {
		t.Errorf("only %d requests", len(samples))
	}
}

// The same where the dead backend has nearly all of the weight and header changes of its own, also with hardly a client:
// a try that fails is followed by others until the backend's weight has moved, and ejections that end are no second loss.
// A lone client decides by luck, so there are several, each of an import of its own.
func TestDeadClusterOfNearlyAll(t *testing.T) {
	for _, c := range []struct {
		name     string
		rate     float64
		services int
	}{{"busy", 100, 1}, {"quiet", 1, 8}} {
		t.Run(c.name, func(t *testing.T) {
			var clients []load.Config
			for i := range c.services {
				name := fmt.Sprintf("%s-%d", c.name, i)
				apply(t, clusterNamed(t, "us-east"), greenAs(name))
				apply(t, story.Lab.Hub, nearlyAllTo(name))
				clients = append(clients, story.Client("us", name+".example.com", c.rate))
			}
			for _, client := range clients {
				testkit.Must(t, story.Await(t.Context(), client, client.Host+" from green", func(s load.Sample) bool { return s.Status == 200 && s.Cluster == "us-east" }))
			}
			var recorders []*load.Recorder
			for _, client := range clients {
				recorders = append(recorders, load.Start(t.Context(), client))
				time.Sleep(time.Second / time.Duration(len(clients))) // not all at the same moment
			}
			time.Sleep(2 * time.Second)
			restore(t, func(context.Context) error { return story.Lab.Restore("us-east") })
			testkit.Must(t, story.Lab.Cut("us-east"))
			time.Sleep(16 * time.Second) // an ejection is 10 s
			for _, recorder := range recorders {
				samples := recorder.Stop()
				lossless(t, samples)
				last := lastSeconds(samples, 4)
				if part := load.Part(last, "us-east"); len(last) == 0 || part > 0 {
					t.Errorf("a cluster that is cut off answered %.2f of %d", part, len(last))
				}
			}
		})
	}
}

// greenAs exports green's pods under another name.
func greenAs(name string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: site}
spec: {selector: {app: green}, ports: [{name: http, port: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: %[1]s, namespace: site}
`, name)
}

// nearlyAllTo is a route that sends 99 % to an import, with a response header of its own, and the rest to blue.
func nearlyAllTo(name string) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %[1]s, namespace: site}
spec:
  parentRefs: [{namespace: infra, name: shared, sectionName: https}]
  hostnames: [%[1]s.example.com]
  rules:
  - backendRefs:
    - {group: multicluster.x-k8s.io, kind: ServiceImport, name: blue, port: 8080, weight: 1}
    - group: multicluster.x-k8s.io
      kind: ServiceImport
      name: %[1]s
      port: 8080
      weight: 99
      filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-side, value: green}]}}]
`, name)
}

// A backend that Kubernetes says has no ready endpoint keeps its weight, as 503:
// the Gateway API asks for exactly that.
func TestBackendWithoutEndpointsKeepsItsShare(t *testing.T) {
	east := clusterNamed(t, "us-east")
	restore(t, func(ctx context.Context) error {
		if _, err := east.Kubectl(ctx, nil, "scale", "-n", "site", "deployment/green", "--replicas=4"); err != nil {
			return err
		}
		return east.AwaitPods(ctx, "site", "app=green", 4)
	})
	kubectl(t, east, "scale", "-n", "site", "deployment/green", "--replicas=0")
	testkit.Must(t, east.AwaitPods(t.Context(), "site", "app=green", 0))
	config := story.Client("us", "site.example.com", 300)
	config.URL += "login"
	testkit.Must(t, story.Await(t.Context(), config, "a 503 of green's weight", func(s load.Sample) bool { return s.Status == 503 }))
	samples := load.Run(t.Context(), config, 4000)
	refused := load.Count(samples, func(s load.Sample) bool { return s.Status == 503 })
	if part := float64(refused) / float64(len(samples)); math.Abs(part-0.1) > 0.02 { // four standard deviations
		t.Errorf("%.3f of the requests are answered 503, want green's weight 0.1", part)
	}
	if others := load.Failed(samples) - refused; others > 0 {
		t.Errorf("%d requests failed otherwise", others)
	}
}

// The fleet admin's scaler 0 takes all traffic off a cluster, 100 brings it
// back, and no client notices.
func TestScalerDrains(t *testing.T) {
	scale := func(ctx context.Context, percent string) error {
		_, err := story.Lab.Hub.Kubectl(ctx, nil, "patch", "membercluster", "us-west", "--type=merge", "-p", `{"spec":{"capacity":{"scaler":`+percent+`}}}`)
		return err
	}
	recorder := load.Start(t.Context(), story.Client("us", "store.example.com", 150))
	defer recorder.Stop()
	half := func(part float64) bool { return math.Abs(part-0.5) < 0.1 }
	awaitPart(t, recorder, "us-west to serve its half", half, "us-west")
	restore(t, func(ctx context.Context) error { return scale(ctx, "100") })
	testkit.Must(t, scale(t.Context(), "0"))
	awaitPart(t, recorder, "us-west to serve nothing", func(part float64) bool { return part == 0 }, "us-west")
	awaitPart(t, recorder, "us-east to serve all, eu-west nothing", func(part float64) bool { return part == 1 }, "us-east")
	if table := kubectl(t, story.Lab.Hub, "get", "membercluster", "us-west", "-o", "wide"); !strings.Contains(table, " 0 ") {
		t.Errorf("the table does not show scaler 0:\n%s", table)
	}
	testkit.Must(t, scale(t.Context(), "100"))
	awaitPart(t, recorder, "us-west to serve its half again", half, "us-west")
	lossless(t, recorder.Stop())
}

// Edges probe what a BackendPolicy asks them to: who fails the probe gets
// nothing, though Kubernetes says that it is ready, until it passes again.
func TestProbesDecide(t *testing.T) {
	probe := func(path string) string {
		return `{"spec":{"healthCheck":{"interval":"1s","http":{"path":"` + path + `"}}}}`
	}
	apply(t, story.Lab.Hub, `
apiVersion: crossway.dev/v1alpha1
kind: BackendPolicy
metadata: {name: probed, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}]
  healthCheck: {interval: 1s, http: {path: /-/ready}}
`)
	config := story.Client("us", "store.example.com", 50)
	says(t, object{"hub", "backendpolicy", "shop", "probed"}, "Accepted=True")
	lossless(t, load.Run(t.Context(), config, 250))
	kubectl(t, story.Lab.Hub, "patch", "backendpolicy", "-n", "shop", "probed", "--type=merge", "-p", probe("/?status=503"))
	refused := func(s load.Sample) bool { return s.Status == 503 }
	testkit.Must(t, story.Await(t.Context(), config, "a 503, for every pod fails its probe", refused))
	if samples := load.Run(t.Context(), config, 50); load.Count(samples, refused) != len(samples) {
		t.Errorf("%d of %d requests were answered 503 although every pod fails its probe", load.Count(samples, refused), len(samples))
	}
	kubectl(t, story.Lab.Hub, "patch", "backendpolicy", "-n", "shop", "probed", "--type=merge", "-p", probe("/-/ready"))
	testkit.Must(t, story.Await(t.Context(), config, "an answer again", func(s load.Sample) bool { return s.Status == 200 }))
	lossless(t, load.Run(t.Context(), config, 250))
}
