package gateway

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// Stories: `add` adds YAML objects (an object replaces an earlier one of its name),
// `remove` removes one, `build` prints the Model and `status` the reports, selected
// by kind= and name=. Every story begins with class "crossway".
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		f := newFixture(t)
		datadriven.RunTest(t, path, f.run)
	})
}

// baseObjects is a small fleet that most stories begin with.
const baseObjects = `
kind: EdgePool
metadata: {name: us}
spec: {region: us, addresses: [{cidr: 198.18.1.0/24}]}
status: {edges: 2, allocations: [{gateway: {namespace: infra, name: shared}, address: 198.18.1.7}]}
---
kind: EdgePool
metadata: {name: eu}
spec: {region: eu, addresses: [{cidr: 198.18.2.0/24}]}
status: {edges: 2, allocations: [{gateway: {namespace: infra, name: shared}, address: 198.18.2.7}]}
---
kind: Gateway
metadata: {name: shared, namespace: infra}
spec:
  gatewayClassName: crossway
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
kind: FleetService
metadata: {name: store.shop, namespace: crossway-fleet}
spec:
  service: {namespace: shop, name: store}
  type: ClusterSetIP
  clusters: [{name: eu-west, sequence: 1}, {name: us-west, sequence: 1}]
  ports: [{name: http, port: 8080}, {name: h2, port: 8081, appProtocol: kubernetes.io/h2c, clusters: [us-west]}, {name: dns, port: 53, protocol: UDP}, {name: tls, port: 8443, appProtocol: https}]
---
kind: FleetService
metadata: {name: green.shop, namespace: crossway-fleet}
spec:
  service: {namespace: shop, name: green}
  type: ClusterSetIP
  clusters: [{name: us-west, sequence: 1}]
  ports: [{name: http, port: 8080}]
---
kind: Service
metadata: {name: store, namespace: shop}
spec: {ports: [{name: web, port: 80}]}
`

// fixture is the Input of a story.
type fixture struct {
	t        *testing.T
	in       Input
	progress Progress
	refusals []Refusal

	earlier Earlier
	last    Result
	before  []*Route // of last
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, progress: Progress{}, earlier: Earlier{}}
	f.add(`{kind: GatewayClass, metadata: {name: crossway}, spec: {controllerName: crossway.dev/gateway}}`)
	return f
}

func (f *fixture) run(t *testing.T, d *datadriven.TestData) string {
	arg := func(key string) string {
		var v string
		if d.HasArg(key) {
			d.ScanArgs(t, key, &v)
		}
		return v
	}
	switch d.Cmd {
	case "add":
		f.add(d.Input)
		return ""
	case "base":
		f.add(baseObjects)
		return ""
	case "secret": // secret name=infra/shop kind=good
		f.addSecret(arg("name"), arg("kind"))
		return ""
	case "certificate": // prints whether a Secret is valid, and if not, why
		secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "cert"}, Data: certificate(t, arg("kind"))}
		if problem := certificateProblem(&secret); problem != "" {
			return problem + "\n"
		}
		return "ok\n"
	case "remove": // remove kind=HTTPRoute name=shop/store
		f.remove(arg("kind"), arg("name"))
		return ""
	case "refused": // refused name=shop/store generation=2 in=eu instead=1; without arguments: nothing any more
		if len(d.CmdArgs) == 0 {
			f.refusals = nil
			return ""
		}
		refusal := Refusal{Ref: condition.Ref{Kind: condition.HTTPRoute, Name: objectName(arg("name"))}, PoolRefusal: condition.PoolRefusal{Pool: arg("in"), Message: d.Input}}
		d.ScanArgs(t, "generation", &refusal.Ref.Generation)
		d.MaybeScanArgs(t, "instead", &refusal.Instead)
		f.refusals = append(f.refusals, refusal)
		return ""
	case "programmed": // programmed gateway=infra/shared generation=1 connected=2 acked=2 unserved=eu
		f.progress[objectName(arg("gateway"))] = programming(t, d, arg)
		return ""
	case "crds":
		f.in.CRDVersion = arg("version")
		return ""
	case "allocate":
		return f.allocate()
	case "rule": // prints whether one rule of a route is valid, and if not, why
		return f.ruleProblem(d.Input)
	case "build":
		return describeModel(f.build().Model)
	case "status":
		return describeReports(Report(f.build(), f.progress, f.refusals...), arg("kind"), arg("name"))
	default:
		t.Fatalf("unknown command %q", d.Cmd)
		return ""
	}
}

// programming reads how far a Gateway's edges are.
func programming(t *testing.T, d *datadriven.TestData, arg func(string) string) (p Programming) {
	d.ScanArgs(t, "generation", &p.Generation)
	d.ScanArgs(t, "connected", &p.Connected)
	d.ScanArgs(t, "acked", &p.Acked)
	if unserved := arg("unserved"); unserved != "" {
		p.Unserved = []string{unserved}
	}
	if refused := arg("refused"); refused != "" {
		p.Refused, p.Message = []string{refused}, d.Input
	}
	return p
}

// build is a Build after the one of the last call, as the reconciler makes them.
func (f *fixture) build() Result {
	slices.SortFunc(f.in.Routes, func(a, b *Route) int { return a.Ref.Compare(b.Ref) })
	f.earlier.Note(f.last, f.before, f.in.Routes)
	f.last = f.earlier.Build(&f.in)
	f.before, f.in.Memo = f.in.Routes, nil
	return f.last
}

func (f *fixture) add(text string) {
	for _, document := range strings.Split(strings.TrimSpace(text), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			f.t.Fatalf("%v in:\n%s", err, document)
		}
		switch kind.Kind {
		case "GatewayClass":
			addTo(f.t, &f.in.GatewayClasses, document)
		case "Gateway":
			addTo(f.t, &f.in.Gateways, document)
		case "GatewayParameters":
			addTo(f.t, &f.in.Parameters, document)
		case "HTTPRoute":
			routes := objectsOf(f.in.Routes)
			addTo(f.t, &routes, document)
			f.in.Routes = adapted(routes)
		case "ReferenceGrant":
			addTo(f.t, &f.in.Grants, document)
		case "Namespace":
			addTo(f.t, &f.in.Namespaces, document)
		case "Secret":
			addTo(f.t, &f.in.Secrets, document)
		case "FleetService":
			addTo(f.t, &f.in.Imports, document)
		case "ServiceImport":
			addTo(f.t, &f.in.ServiceImports, document)
		case "Service":
			addTo(f.t, &f.in.Services, document)
		case "BackendPolicy":
			addTo(f.t, &f.in.Policies, document)
		case "EdgePool":
			addTo(f.t, &f.in.Pools, document)
		default:
			f.t.Fatalf("unknown kind %q", kind.Kind)
		}
	}
}

func addTo[T any, O interface {
	*T
	metav1.Object
}](t *testing.T, objects *[]T, document string) {
	var object T
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		t.Fatalf("%v in:\n%s", err, document)
	}
	if O(&object).GetGeneration() == 0 {
		O(&object).SetGeneration(1)
	}
	for i := range *objects {
		old := O(&(*objects)[i])
		if old.GetName() == O(&object).GetName() && old.GetNamespace() == O(&object).GetNamespace() {
			(*objects)[i] = object
			return
		}
	}
	*objects = append(*objects, object)
}

func objectsOf(routes []*Route) (objects []gatewayv1.HTTPRoute) {
	for _, route := range routes {
		objects = append(objects, *objectOf(route))
	}
	return objects
}

func (f *fixture) remove(kind, name string) {
	switch kind {
	case "GatewayClass":
		f.in.GatewayClasses = without[gatewayv1.GatewayClass](f.in.GatewayClasses, "/"+name)
	case "Gateway":
		f.in.Gateways = without[gatewayv1.Gateway](f.in.Gateways, name)
	case "HTTPRoute":
		f.in.Routes = adapted(without[gatewayv1.HTTPRoute](objectsOf(f.in.Routes), name))
	case "ReferenceGrant":
		f.in.Grants = without[gatewayv1beta1.ReferenceGrant](f.in.Grants, name)
	case "Secret":
		f.in.Secrets = without[corev1.Secret](f.in.Secrets, name)
	case "FleetService":
		f.in.Imports = without[v1alpha1.FleetService](f.in.Imports, name)
	case "ServiceImport":
		f.in.ServiceImports = without[mcsv1beta1.ServiceImport](f.in.ServiceImports, name)
	default:
		f.t.Fatalf("cannot remove a %q", kind)
	}
}

func without[T any, O interface {
	*T
	metav1.Object
}](objects []T, name string) (kept []T) {
	for i := range objects {
		if object := O(&objects[i]); object.GetNamespace()+"/"+object.GetName() != name {
			kept = append(kept, objects[i])
		}
	}
	return kept
}

func objectName(text string) fleet.ObjectName {
	namespace, name, found := strings.Cut(text, "/")
	if !found {
		return fleet.ObjectName{Name: text}
	}
	return fleet.ObjectName{Namespace: namespace, Name: name}
}

// allocate stores the results of Allocate, as the hub does.
func (f *fixture) allocate() string {
	var out bytes.Buffer
	for _, pool := range Allocate(f.in) {
		fmt.Fprintf(&out, "%s:", pool.Name)
		for _, a := range pool.Status.Allocations {
			fmt.Fprintf(&out, " %s/%s=%s", a.Gateway.Namespace, a.Gateway.Name, a.Address)
		}
		fmt.Fprintln(&out)
		for i := range f.in.Pools {
			if f.in.Pools[i].Name == pool.Name {
				f.in.Pools[i] = pool
			}
		}
	}
	if out.Len() == 0 {
		return "nothing changed\n"
	}
	return out.String()
}

func (f *fixture) ruleProblem(text string) string {
	rule := gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{
		BackendObjectReference: gatewayv1.BackendObjectReference{Name: "store", Port: new(gatewayv1.PortNumber(80))},
	}}}}
	if err := yaml.UnmarshalStrict([]byte(text), &rule); err != nil {
		f.t.Fatalf("%v in:\n%s", err, text)
	}
	route := gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tested"}}
	route.Spec.Rules = []gatewayv1.HTTPRouteRule{rule}
	if problem := (httpRoute{&route}).plan().rules[0].problem; problem != "" {
		return strings.TrimPrefix(problem, "rules[0]: ") + "\n"
	}
	return "ok\n"
}
