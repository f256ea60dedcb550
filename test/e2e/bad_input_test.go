package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// mistake is one thing that a user gets wrong, and what the status reports.
type mistake struct {
	name    string
	cluster string // where it is applied
	what    string
	on      object // that says so
	verdict string
	message []string // which object, what is wrong, what to do
}

// backend is a route at the shared Gateway, same port and hostname as the
// loaded neighbour, with the given backendRef.
func backend(name, reference string) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: shop}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [store.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%[1]s}}]
    backendRefs: [{%s}]
`, name, reference)
}

func routeObject(name string) object { return object{"hub", "httproute", "shop", name} }

const importRef = "group: multicluster.x-k8s.io, kind: ServiceImport, "

var mistakes = []mistake{
	{"an import that does not exist", "hub", backend("no-import", importRef+"name: nowhere, port: 8080"), routeObject("no-import"),
		"ResolvedRefs=False BackendNotFound", []string{`ServiceImport "shop/nowhere" does not exist`, `export Service "nowhere"`}},
	{"a port that the import lacks", "hub", backend("no-port", importRef+"name: store, port: 9999"), routeObject("no-port"),
		"ResolvedRefs=False BackendNotFound", []string{`ServiceImport "shop/store" has no TCP port 9999`, "it has 8080"}},
	{"a kind that it may not name", "hub", backend("no-kind", `group: "", kind: Secret, name: store`), routeObject("no-kind"),
		"ResolvedRefs=False InvalidKind", []string{`"store" is of kind "Secret"`, "use ServiceImport"}},
	{"an import of another namespace", "hub", backend("no-grant", importRef+"namespace: site, name: blue, port: 8080"), routeObject("no-grant"),
		"ResolvedRefs=False RefNotPermitted", []string{`"site/blue"`, `add a ReferenceGrant in namespace "site"`}},
	{"an import that nobody exports", "hub", `
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: handmade, namespace: shop}
spec: {type: ClusterSetIP, ports: [{port: 8080, protocol: TCP}]}
---` + backend("handmade", importRef+"name: handmade, port: 8080"), routeObject("handmade"),
		"ResolvedRefs=False BackendNotFound", []string{`ServiceImport "shop/handmade" was not made by Crossway`, "export it"}},
	{"a regular expression that costs too much", "hub", `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: costly, namespace: shop}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [store.example.com]
  rules: [{matches: [{path: {type: RegularExpression, value: "/[a-z]{500}"}}]}]
`, routeObject("costly"), "Accepted=False OverBudget", []string{"rules[0] has a regular expression", `Gateway "infra/shared" allows 1000`, "repeat less"}},
	{"two routes that clash", "hub", routeTo("shop", "twin", "store.example.com", "store", 8080), routeObject("twin"),
		"Shadowed=True SameMatch", []string{`HTTPRoute "shop/store"`, "change one of them"}},
	{"two listeners that clash", "hub", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: clash, namespace: infra}
spec:
  gatewayClassName: crossway-global
  listeners:
  - {name: plain, protocol: HTTP, port: 443, hostname: clash.example.com}
  - {name: secure, protocol: HTTPS, port: 443, hostname: clash.example.com, tls: {certificateRefs: [{name: example-com}]}}
`, object{"hub", "gateway", "infra", "clash"}, "Conflicted=True ProtocolConflict", []string{`"secure"`, "port 443", "give each protocol its own port"}},
	{"two policies on one target", "hub", `
apiVersion: crossway.dev/v1alpha1
kind: BackendPolicy
metadata: {name: second, namespace: shop}
spec:
  targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: checkout}]
  capacity: {maxRatePerEndpoint: 1000}
`, object{"hub", "backendpolicy", "shop", "second"}, "Accepted=False Conflicted", []string{`BackendPolicy "shop/checkout" is older`, `"shop/checkout"`, "remove this target"}},
	{"an export of a missing Service", "us-west", serviceExport("ghost"), object{"us-west", "serviceexport", "shop", "ghost"},
		"Valid=False NoService", []string{`Service "shop/ghost" does not exist`, "create it"}},
	{"an export of an ExternalName Service", "us-west", `
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: example.org}
---` + serviceExport("outside"), object{"us-west", "serviceexport", "shop", "outside"},
		"Valid=False InvalidServiceType", []string{`Service "shop/outside" has type ExternalName`, "export a Service of type ClusterIP"}},
}

func serviceExport(name string) string {
	return fmt.Sprintf(`
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: %s, namespace: shop}
`, name)
}

// Each mistake is reported on the object that has it: which object, what is wrong,
// what to do. A neighbour on the same Gateway, port and hostname loses nothing
// meanwhile, and with all mistakes in place a new route still arrives.
func TestMistakesAreReportedAndHurtNobody(t *testing.T) {
	loaded(t, story.Client("us", "store.example.com", 100), 1000, func() {
		for _, m := range mistakes {
			apply(t, clusterNamed(t, m.cluster), m.what)
		}
		for _, m := range mistakes {
			t.Run(m.name, func(t *testing.T) { says(t, m.on, m.verdict, m.message...) })
		}
		t.Run("certificates", certificates)
		apply(t, story.Lab.Hub, routeTo("shop", "later", "later.example.com", "store", 8080))
		testkit.Must(t, story.Await(t.Context(), story.Client("us", "later.example.com", 20), "a new route beside all mistakes", func(s load.Sample) bool { return s.Status == 200 }))
		servedUnder(t, "no-import", 500) // GEP-1364: what an invalid backend is asked for
		servedUnder(t, "no-kind", 500)
	})
}

// servedUnder says how a path of the neighbour's host is answered.
func servedUnder(t *testing.T, path string, status int) {
	t.Helper()
	config := story.Client("us", "store.example.com", 20)
	config.URL += path
	testkit.Must(t, story.Await(t.Context(), config, fmt.Sprintf("%d at /%s", status, path), func(s load.Sample) bool { return s.Status == status }))
}

// certificates puts listeners on the shared Gateway itself: one whose Secret is
// no certificate, one whose key is another's, and one whose Secret is missing.
func certificates(t *testing.T) {
	good := secretData(t, "infra", "example-com")
	other := secretData(t, "crossway-system", "crossway-edge-us")
	apply(t, story.Lab.Hub, tlsSecret("not-one", "bm90IGEgY2VydGlmaWNhdGU=", "bm90IGEga2V5")+tlsSecret("mismatched", good["tls.crt"], other["tls.key"]))
	before := kubectl(t, story.Lab.Hub, "get", "gateway", "-n", "infra", "shared", "-o", "jsonpath={.spec.listeners}")
	set := func(ctx context.Context, listeners string) error {
		_, err := story.Lab.Hub.Kubectl(ctx, nil, "patch", "gateway", "-n", "infra", "shared", "--type=merge", "-p", `{"spec":{"listeners":`+listeners+`}}`)
		return err
	}
	restore(t, func(ctx context.Context) error { return set(ctx, before) })
	var more strings.Builder
	for _, name := range []string{"not-one", "mismatched", "missing"} {
		fmt.Fprintf(&more, `,{"name":"%s","protocol":"HTTPS","port":443,"hostname":"%[1]s.example.org","tls":{"certificateRefs":[{"name":"%[1]s"}]}}`, name)
	}
	testkit.Must(t, set(t.Context(), strings.TrimSuffix(before, "]")+more.String()+"]"))
	shared := object{"hub", "gateway", "infra", "shared"}
	for name, word := range map[string]string{"not-one": "is not a PEM certificate chain", "mismatched": "do not make a pair", "missing": "there is no Secret"} {
		says(t, shared, "ResolvedRefs=False InvalidCertificateRef", `"infra/`+name+`"`, word)
	}
	t.Log(strings.Join(conditionsOf(t, shared), "\n"))
}

// secretData is a Secret's data, base64.
func secretData(t *testing.T, namespace, name string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, key := range []string{"tls.crt", "tls.key"} {
		out[key] = kubectl(t, story.Lab.Hub, "get", "secret", "-n", namespace, name, "-o", `jsonpath={.data.`+strings.ReplaceAll(key, ".", `\.`)+`}`)
	}
	return out
}

func tlsSecret(name, certificate, key string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: infra}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n---\n", name, certificate, key)
}

// A Service without selector, whose slices somebody wrote by hand: one address
// of the cluster, one of another cluster, one of nobody, one IPv6.
const smuggled = `
apiVersion: v1
kind: Service
metadata: {name: smuggled, namespace: shop}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: smuggled-4, namespace: shop, labels: {kubernetes.io/service-name: smuggled}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [%s], conditions: {ready: true}}
- {addresses: [10.2.77.77], conditions: {ready: true}}
- {addresses: [203.0.113.77], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: smuggled-6, namespace: shop, labels: {kubernetes.io/service-name: smuggled}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: ["2001:db8::77"], conditions: {ready: true}}
---` // and its export

// Endpoints outside of what a member may announce reach no Envoy, and a
// condition says which they are, on the hub and in the member. The good one
// beside them is served.
func TestForeignEndpointsReachNoEnvoy(t *testing.T) {
	west := clusterNamed(t, "us-west")
	apply(t, story.Lab.Hub, routeTo("shop", "smuggled", "smuggled.example.com", "smuggled", 8080))
	apply(t, west, fmt.Sprintf(smuggled, podAddress(t, "us-west", "store"))+serviceExport("smuggled"))
	for _, on := range []object{{"us-west", "serviceexport", "shop", "smuggled"}, {"hub", "memberexport", "member-us-west", "smuggled.shop"}} {
		says(t, on, "EndpointsAdmitted=False EndpointsRefused", "10.2.77.77", "203.0.113.77", "2001:db8::77", `spec.endpointCIDRs of MemberCluster "us-west"`)
	}
	t.Log(strings.Join(conditionsOf(t, object{"us-west", "serviceexport", "shop", "smuggled"}), "\n"))
	config := story.Client("us", "smuggled.example.com", 50)
	testkit.Must(t, story.Await(t.Context(), config, "the good endpoint", func(s load.Sample) bool { return s.Status == 200 }))
	lossless(t, load.Run(t.Context(), config, 100))
	for _, e := range edgesOf(t, "") {
		dump := admin(t, e, "/config_dump?include_eds")
		for _, foreign := range []string{"10.2.77.77", "203.0.113.77", "2001:db8::77"} {
			if strings.Contains(dump, foreign) {
				t.Errorf("edge %s has %s", e.Name, foreign)
			}
		}
		if !strings.Contains(dump, "us-west/shop/smuggled") {
			t.Errorf("edge %s has nothing of the import: this test could not fail", e.Name)
		}
	}
}

func podAddress(t *testing.T, cluster, app string) string {
	t.Helper()
	pods, err := clusterNamed(t, cluster).Client.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	testkit.Must(t, err)
	if len(pods.Items) == 0 {
		t.Fatalf("%s has no pod of %s", cluster, app)
	}
	return pods.Items[0].Status.PodIP
}

// A member's credential writes in its own namespace and nowhere else; and there
// Kubernetes itself refuses an endpoint with a link-local address.
func TestMembersWriteNowhereElse(t *testing.T) {
	config, err := story.Lab.Hub.As(memberUser(t, "us-west"), "crossway:members")
	testkit.Must(t, err)
	client, err := dynamic.NewForConfig(config)
	testkit.Must(t, err)
	exports := schema.GroupVersionResource{Group: "crossway.dev", Version: "v1alpha1", Resource: "memberexports"}
	imports := schema.GroupVersionResource{Group: "crossway.dev", Version: "v1alpha1", Resource: "fleetservices"}
	endpointSlices := schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}
	secrets := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	forged := func(address string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": map[string]any{"name": "forged"},
			"addressType": "IPv4", "endpoints": []any{map[string]any{"addresses": []any{address}}},
		}}
	}
	for _, namespace := range []string{"member-us-east", "shop", "crossway-fleet"} {
		_, err := client.Resource(endpointSlices).Namespace(namespace).Create(t.Context(), forged("10.1.0.1"), metav1.CreateOptions{})
		forbidden(t, "create an EndpointSlice in "+namespace, err)
	}
	forbidden(t, "delete another's export", client.Resource(exports).Namespace("member-us-east").Delete(t.Context(), "store.shop", metav1.DeleteOptions{}))
	_, err = client.Resource(exports).Namespace("member-us-east").Get(t.Context(), "store.shop", metav1.GetOptions{})
	forbidden(t, "read another's export", err)
	forbidden(t, "delete an import", client.Resource(imports).Namespace("crossway-fleet").Delete(t.Context(), "store.shop", metav1.DeleteOptions{}))
	_, err = client.Resource(secrets).Namespace("crossway-system").Get(t.Context(), "crossway-edge-ca", metav1.GetOptions{})
	forbidden(t, "read the edge CA", err)

	own := client.Resource(endpointSlices).Namespace("member-us-west")
	for _, address := range []string{"169.254.169.254", "127.0.0.1"} {
		if _, err := own.Create(t.Context(), forged(address), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); !apierrors.IsInvalid(err) {
			t.Errorf("an endpoint with address %s: %v", address, err)
		}
	}
	if _, err := own.Create(t.Context(), forged("10.1.0.1"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("its own namespace refuses it, too, so this test could not fail: %v", err)
	}
}

func forbidden(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s: %v, want it forbidden", what, err)
	}
}

// Names as long as Kubernetes lets them be go the whole way: namespace and
// Service of 63 characters, a route of 253.
func TestLongestNamesAreServed(t *testing.T) {
	namespace, service := strings.Repeat("n", 63), strings.Repeat("s", 63)
	space := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace + ", labels: {shared-gateway: \"true\"}}\n"
	apply(t, story.Lab.Hub, space)
	apply(t, story.Lab.Hub, routeTo(namespace, strings.Repeat("r", 253), "long.example.com", service, 8080))
	west := clusterNamed(t, "us-west")
	apply(t, west, space)
	apply(t, west, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: long, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [%[3]s], conditions: {ready: true}}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: %[1]s, namespace: %[2]s}
`, service, namespace, podAddress(t, "us-west", "store")))
	config := story.Client("us", "long.example.com", 50)
	testkit.Must(t, story.Await(t.Context(), config, "an import with the longest names", func(s load.Sample) bool { return s.Status == 200 }))
	lossless(t, load.Run(t.Context(), config, 100))
	says(t, object{"us-west", "serviceexport", namespace, service}, "Ready=True")
	says(t, object{"hub", "httproute", namespace, strings.Repeat("r", 253)}, "Accepted=True")
}
