package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// spoken is a service whose pods speak one protocol: h2c or HTTP/1.1, and no other.
const spoken = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: spoken, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: spoken}}
  template:
    metadata: {labels: {app: spoken}}
    spec:
      containers:
      - name: echo
        image: crossway/echo
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        env: [{name: CLUSTER, value: CLUSTERNAME}, {name: PROTOCOL, value: "WIRE"}]
---
apiVersion: v1
kind: Service
metadata: {name: spoken, namespace: shop}
spec: {selector: {app: spoken}, ports: [{name: http, port: 80, targetPort: 8080, appProtocol: "kubernetes.io/WIRE"}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: spoken, namespace: shop}
`

func spokenIn(cluster, protocol string) string {
	manifest := strings.ReplaceAll(spoken, "CLUSTERNAME", cluster)
	if protocol == "" {
		return strings.NewReplacer(`, appProtocol: "kubernetes.io/WIRE"`, "", "WIRE", "").Replace(manifest)
	}
	return strings.ReplaceAll(manifest, "WIRE", protocol)
}

// One service speaks h2c in one cluster and HTTP/1.1 in another. Both are told, and
// nobody is spoken to in a protocol that it does not speak: not by edges, and not by pods,
// whose kube-proxy knows nothing of protocols. When the senior goes, the other serves, in
// its own.
func TestProtocolsOfClusters(t *testing.T) {
	west, east, far := clusterNamed(t, "us-west"), clusterNamed(t, "us-east"), clusterNamed(t, "eu-west")
	apply(t, far, strings.ReplaceAll(requestPod, "NAMESPACE", "shop"))
	apply(t, west, spokenIn("us-west", "h2c"))
	says(t, object{"us-west", "serviceexport", "shop", "spoken"}, "Ready=True")
	apply(t, east, spokenIn("us-east", ""))
	for _, cluster := range []string{"us-west", "us-east"} {
		says(t, object{cluster, "serviceexport", "shop", "spoken"}, "Conflict=True PortConflict", "kubernetes.io/h2c")
	}
	apply(t, story.Lab.Hub, routeTo("shop", "spoken", "spoken.example.com", "spoken", 80))
	testkit.Must(t, far.AwaitPods(t.Context(), "shop", "app=request", 1))
	testkit.Must(t, west.AwaitPods(t.Context(), "shop", "app=spoken", 1))
	testkit.Must(t, east.AwaitPods(t.Context(), "shop", "app=spoken", 1))
	pod := func(protocols *http.Protocols) load.Config {
		ip := ""
		eventually(t, "an import with an IP in eu-west", func() (bool, string) {
			out, err := far.Kubectl(t.Context(), nil, "get", "serviceimport", "spoken", "-n", "shop", "-o", "jsonpath={.spec.ips[0]}")
			ip = out
			return err == nil && ip != "", fmt.Sprint(out, err)
		})
		c := load.Client(far.DialerIn("shop", "request"), nil)
		c.Transport.(*http.Transport).Protocols, c.Timeout = protocols, 5*time.Second
		return load.Config{Rate: 50, URL: "http://" + ip + "/", Host: "spoken", Client: c}
	}
	both := func(cluster string, fromPod load.Config) {
		t.Helper()
		for who, config := range map[string]load.Config{"edges": story.Client("eu", "spoken.example.com", 50), "pods": fromPod} {
			eventually(t, cluster+" to answer "+who, func() (bool, string) {
				samples := load.Run(t.Context(), config, 30)
				return load.Failed(samples) == 0 && load.Part(samples, cluster) == 1, fmt.Sprint(samples[len(samples)-1])
			})
			lossless(t, load.Run(t.Context(), config, 100))
		}
	}
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	both("us-west", pod(&h2c))
	manifest := spokenIn("us-west", "h2c")
	testkit.Must(t, west.Delete(t.Context(), []byte(manifest[strings.LastIndex(manifest, "---"):])))
	says(t, object{"us-east", "serviceexport", "shop", "spoken"}, "Conflict=False")
	both("us-east", pod(nil))
}
