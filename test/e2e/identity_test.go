package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// regional is a Gateway that lives on the edges of region us alone, with a
// certificate of its own: what another region's edge must not get to see.
const regional = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: regional, namespace: infra}
spec:
  gatewayClassName: crossway-regional-us
  listeners:
  - name: https
    protocol: HTTPS
    port: 443
    tls: {certificateRefs: [{name: regional}]}
    allowedRoutes: {namespaces: {from: All}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: regional, namespace: shop}
spec:
  parentRefs: [{namespace: infra, name: regional}]
  hostnames: [regional.example.com]
  rules:
  - backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 8080}]
`

// A client certificate is who an edge is. One of another region, of a pool that
// does not bear it out, of a member or of a stranger asks for each resource of
// region us by its name and gets none.
func TestCertificatesOfOthersGetNothing(t *testing.T) {
	copySecret(t, "infra", "example-com", "regional")
	apply(t, story.Lab.Hub, regional)
	says(t, object{"hub", "gateway", "infra", "regional"}, "Programmed=True")
	names := namesWith(t, "regional")
	t.Logf("resources of the regional Gateway: %s", strings.Join(names, ", "))

	ca, began := edgeCA(t), time.Now()
	if got, err := ask(t, dialHub(t, ca.edge(t, "us", "us")), names, 15*time.Second); err != nil || len(got) != 5 {
		t.Fatalf("an edge of us gets %v of its own (%v): this test could not fail", got, err)
	}
	patience := 5 * (time.Since(began) + time.Second) // five times what an edge of us waited for
	member, err := story.Lab.Hub.Sign(memberUser(t, "us-west"), "crossway:members")
	testkit.Must(t, err)
	of, err := member.TLS()
	testkit.Must(t, err)
	stranger, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	for _, other := range []struct {
		who         string
		certificate tls.Certificate
		refused     bool // before anything can be asked
	}{
		{"an edge of another region", ca.edge(t, "eu", "eu"), false},
		{"a region that its EdgePool does not have", ca.edge(t, "eu", "us"), true},
		{"a pool that does not exist", ca.edge(t, "mars", "us"), true},
		{"a member cluster", of, true},
		{"a stranger who says that he is an edge of us", authority{stranger, ca.roots}.edge(t, "us", "us"), true},
		{"nobody", tls.Certificate{}, true},
	} {
		t.Run(other.who, func(t *testing.T) {
			got, err := ask(t, dialHub(t, other.certificate), names, patience)
			if len(got) > 0 {
				t.Errorf("gets %v", got)
			}
			if (err != nil) != other.refused {
				t.Errorf("is answered %v", err)
			}
			t.Logf("%s: %v", other.who, err)
		})
	}
}

// An edge of eu that claims in every message to be of us, and to be swamped,
// moves nothing in us. A certificate of us would: the shares of checkout, 20 rps
// in each of two clusters, then go half to each, until a minute after it has gone.
// No later test needs them.
func TestCertificatesOfOthersReportNoLoad(t *testing.T) {
	ca := edgeCA(t)
	recorder := load.Start(t.Context(), story.Client("us", "checkout.example.com", 10))
	defer recorder.Stop()
	home := func(part float64) bool { return part == 0 }
	awaitPart(t, recorder, "clients of us to be served at home", home, "eu-west")
	names := namesWith(t, "shop/checkout/")
	// "<namespace>/<route>/<hash>"; rules are "<namespace>/<route>/<rule>/<match>"
	assignment := names[slices.IndexFunc(names, func(n string) bool { return strings.Count(n, "/") == 2 })]

	stop := swamp(t, dialHub(t, ca.edge(t, "eu", "eu")), assignment)
	began := time.Now()
	time.Sleep(6 * time.Second)
	stop()
	if part := load.Part(load.Between(recorder.Samples(), began, time.Now().Add(-time.Second)), "eu-west"); part > 0.1 { // the odd one is noise of a busy machine
		t.Errorf("a certificate of eu moved %.2f of the requests of us", part)
	}
	stop = swamp(t, dialHub(t, ca.edge(t, "us", "us")), assignment)
	awaitPart(t, recorder, "a certificate of us to move the shares (else this test could not fail)",
		func(part float64) bool { return math.Abs(part-0.5) < 0.15 }, "eu-west")
	stop()
	lossless(t, recorder.Stop())
}

// authority signs edges' certificates; roots are who the hub's own comes from.
type authority struct {
	registration.Pair
	roots *x509.CertPool
}

func edgeCA(t *testing.T) authority {
	t.Helper()
	secret, err := story.Lab.Hub.Client.CoreV1().Secrets(lab.System).Get(t.Context(), registration.EdgeCASecret, metav1.GetOptions{})
	testkit.Must(t, err)
	ca := authority{registration.Pair{Certificate: secret.Data["tls.crt"], Key: secret.Data["tls.key"]}, x509.NewCertPool()}
	if !ca.roots.AppendCertsFromPEM(ca.Certificate) {
		t.Fatal("the edge CA does not parse")
	}
	return ca
}

func (a authority) edge(t *testing.T, pool, region string) tls.Certificate {
	t.Helper()
	uid, err := story.Lab.Hub.Kubectl(t.Context(), nil, "get", "edgepool", pool, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
	testkit.Must(t, err)
	pair, err := registration.NewEdgeCertificate(registration.Issuer{CA: a.Pair, Now: time.Now(), Random: rand.Reader},
		registration.EdgeIdentity{Pool: pool, Region: region, Zone: "zone", PoolUID: uid, Credential: "endtoend01"}, time.Hour)
	testkit.Must(t, err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	testkit.Must(t, err)
	return certificate
}

// copySecret copies a Secret, so that it is a resource of its own.
func copySecret(t *testing.T, namespace, name, to string) {
	t.Helper()
	secrets := story.Lab.Hub.Client.CoreV1().Secrets(namespace)
	secret, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
	testkit.Must(t, err)
	secret.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: to}
	document, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"namespace": namespace, "name": to},
		"type": secret.Type, "data": secret.Data})
	testkit.Must(t, err)
	apply(t, story.Lab.Hub, string(document))
}

// namesWith are the names, in the configuration of an edge of us, that contain
// a text: of resources and of what refers to them, sorted.
func namesWith(t *testing.T, text string) []string {
	t.Helper()
	var document any
	testkit.Must(t, json.Unmarshal([]byte(admin(t, edgesOf(t, "us")[0], "/config_dump?include_eds")), &document))
	found := map[string]bool{}
	collectNames(document, text, found)
	if len(found) == 0 {
		t.Fatalf("an edge of us knows no name with %q", text)
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func collectNames(value any, text string, found map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			if name, ok := child.(string); ok && strings.Contains(name, text) && strings.HasSuffix(key, "name") {
				found[name] = true
			}
			collectNames(child, text, found)
		}
	case []any:
		for _, child := range v {
			collectNames(child, text, found)
		}
	}
}

func short(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

func nodeName(t *testing.T) string { return fmt.Sprintf("false-%x", t.Name()) }
