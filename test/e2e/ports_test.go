package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// A port of a Service gets another name in one cluster, none, and its first one again:
// that costs no request, all exports say what differs, and the cluster keeps its part.
func TestRenamedPortCostsNoRequest(t *testing.T) {
	west := clusterNamed(t, "us-west")
	patch := func(ctx context.Context, name string) error {
		_, err := west.Kubectl(ctx, nil, "patch", "service", "store", "-n", "shop", "--type=json",
			"-p", fmt.Sprintf(`[{"op":"replace","path":"/spec/ports/0/name","value":%q}]`, name))
		return err
	}
	restore(t, func(ctx context.Context) error { return patch(ctx, "http") })
	config := story.Client("us", "store.example.com", 300)
	testkit.Must(t, story.Await(t.Context(), config, "the store", func(s load.Sample) bool { return s.Status == 200 }))
	recorder := load.Start(t.Context(), config)
	defer recorder.Stop()
	for i, name := range []string{"http-web", "", "http"} {
		testkit.Must(t, patch(t.Context(), name))
		eventually(t, fmt.Sprintf("the hub to know the port name %q", name), func() (bool, string) {
			now := kubectl(t, story.Lab.Hub, "get", "memberexport", "store.shop", "-n", "member-us-west", "-o", "jsonpath={.spec.ports[0].name}")
			return now == name, now
		})
		for _, cluster := range []string{"us-west", "eu-west"} {
			verdict := "Conflict=True PortConflict"
			if name == "http" {
				verdict = "Conflict=False NoConflicts"
			}
			says(t, object{cluster, "serviceexport", "shop", "store"}, verdict)
		}
		for len(recorder.Samples()) < 900*(i+1) && t.Context().Err() == nil { // three seconds with this name
			time.Sleep(100 * time.Millisecond)
		}
		awaitPart(t, recorder, fmt.Sprintf("us-west to have its part with the port name %q", name), func(part float64) bool { return part > 0.3 }, "us-west")
	}
	lossless(t, recorder.Stop())
}

// Two clusters have a port of one name under other numbers. Requests for a number go to
// the cluster that has it, however near the other is.
const numbered = `
apiVersion: v1
kind: Service
metadata: {name: numbered, namespace: shop}
spec: {selector: {app: store}, ports: [{name: http, port: %d, targetPort: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: numbered, namespace: shop}
`

func TestPortNumbersOfClusters(t *testing.T) {
	apply(t, clusterNamed(t, "us-west"), fmt.Sprintf(numbered, 8080))
	says(t, object{"us-west", "serviceexport", "shop", "numbered"}, "Ready=True")
	apply(t, clusterNamed(t, "eu-west"), fmt.Sprintf(numbered, 9090))
	says(t, object{"eu-west", "serviceexport", "shop", "numbered"}, "Conflict=True PortConflict", "8080", "9090")
	says(t, object{"us-west", "serviceexport", "shop", "numbered"}, "Conflict=True PortConflict")
	apply(t, story.Lab.Hub, routeTo("shop", "numbered", "numbered.example.com", "numbered", 8080))
	config := story.Client("eu", "numbered.example.com", 50)
	testkit.Must(t, story.Await(t.Context(), config, "the numbered port", func(s load.Sample) bool { return s.Status == 200 }))
	samples := load.Run(t.Context(), config, 100)
	lossless(t, samples)
	if part := load.Part(samples, "us-west"); part < 1 {
		t.Errorf("the cluster with the port answers %.2f of the requests, want all", part)
	}
}
