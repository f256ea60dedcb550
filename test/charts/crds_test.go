package charts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
)

// manifest is an object of a kind of crossway.dev, with a name and a spec.
func manifest(kind, name, spec string) string {
	namespace := ""
	switch kind {
	case "MemberCluster", "EdgePool":
	default:
		namespace = "namespace: default, "
	}
	return "apiVersion: crossway.dev/v1alpha1\nkind: " + kind + "\nmetadata: {" + namespace + "name: " + quote(name) + "}\nspec: " + spec + "\n"
}

func quote(s string) string { return `"` + s + `"` }

const (
	storeRef  = "targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}]"
	usPool    = "{region: us, addresses: [{cidr: 198.18.1.0/24}]}"
	webExport = "{service: {namespace: shop, name: web}, exportedAt: '2026-01-01T00:00:00Z', type: ClusterSetIP}"
)

// exportWith is webExport with another field.
func exportWith(field string) string { return strings.TrimSuffix(webExport, "}") + ", " + field + "}" }

// validations has an object that is accepted and one that is refused, for each
// CEL rule of the CRDs and for the bounds of fields that people write. refused is
// the message of the rule, or the field.
var validations = []struct{ kind, name, spec, refused string }{
	{"BackendPolicy", "a", "{" + storeRef + "}", ""},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {interval: 300s, timeout: 10ms}}", ""},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {interval: 1s, timeout: 1s, http: {path: '/healthz?a=%20b'}}}", ""},
	{"BackendPolicy", "a", "{" + storeRef + ", outlierDetection: {consecutiveGatewayErrors: 5}}", ""},
	{"BackendPolicy", "a", "{" + storeRef + ", outlierDetection: {consecutiveGatewayErrors: 0}}", "spec.outlierDetection.consecutiveGatewayErrors"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {interval: 500ms, timeout: 100ms}}", "interval must be 1s to 300s"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {interval: 301s}}", "interval must be 1s to 300s"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {timeout: 9ms}}", "timeout must be at least 10ms"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {interval: 2s, timeout: 3s}}", "timeout must not be longer than interval"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {http: {path: healthz}}}", "spec.healthCheck.http.path"},
	{"BackendPolicy", "a", "{" + storeRef + ", healthCheck: {http: {path: \"/a b\"}}}", "spec.healthCheck.http.path"},
	{"BackendPolicy", "a", "{targetRefs: [{group: '', kind: Service, name: store}]}", "targetRefs must be ServiceImports (group multicluster.x-k8s.io)"},
	{"BackendPolicy", "a", "{targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: a}, {group: multicluster.x-k8s.io, kind: ServiceImport, name: b}]}", ""},
	{"BackendPolicy", "a", "{targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: a}, {group: multicluster.x-k8s.io, kind: ServiceImport, name: a}]}", "targetRefs must differ from each other"},
	{"BackendPolicy", "a", "{targetRefs: []}", "spec.targetRefs"},
	{"BackendPolicy", "a", "{" + storeRef + ", capacity: {maxRatePerEndpoint: 1}, distribution: {mode: Spray}}", ""},
	{"BackendPolicy", "a", "{" + storeRef + ", capacity: {maxRatePerEndpoint: 0}}", "spec.capacity.maxRatePerEndpoint"},
	{"BackendPolicy", "a", "{" + storeRef + ", distribution: {mode: Random}}", "spec.distribution.mode"},
	{"BackendPolicy", "a", "{" + storeRef + ", isolation: Strict}", "unknown field \"spec.isolation\""},

	{"EdgePool", "us-2", usPool, ""},
	{"EdgePool", strings.Repeat("p", 63), "{region: us, nearest: [eu, ap], exposure: Internal, addresses: [{cidr: '2001:db8::/64'}]}", ""},
	{"EdgePool", strings.Repeat("p", 64), usPool, "name is part of an edge's identity"},
	{"EdgePool", "us.a", usPool, "name is part of an edge's identity"},
	{"EdgePool", "us-2", "{region: us, addresses: [{cidr: 198.18.1.0}]}", "cidr must be a CIDR like 198.18.1.0/24"},
	{"EdgePool", "us-2", "{region: us, addresses: [{cidr: 10.0.0.0/8}, {cidr: 'fd00:1::/64'}]}", ""},
	{"EdgePool", "us-2", "{region: us, addresses: [{cidr: 0.0.0.0/0}]}", "cidr must be of addresses that a machine can hold: not unspecified, link-local or multicast"},
	{"EdgePool", "us-2", "{region: us, addresses: [{cidr: 169.254.0.0/16}]}", "cidr must be of addresses that a machine can hold: not unspecified, link-local or multicast"},
	{"EdgePool", "us-2", "{region: us, addresses: [{cidr: 'ff02::/16'}]}", "cidr must be of addresses that a machine can hold: not unspecified, link-local or multicast"},
	{"EdgePool", "us-2", "{region: us, addresses: []}", "spec.addresses"},
	{"EdgePool", "us-2", "{region: US, addresses: [{cidr: 198.18.1.0/24}]}", "spec.region"},
	{"EdgePool", "us-2", "{region: us, exposure: Public, addresses: [{cidr: 198.18.1.0/24}]}", "spec.exposure"},

	{"MemberExport", "web.shop", webExport, ""},
	{"MemberExport", strings.Repeat("s", 63) + "." + strings.Repeat("n", 63), "{service: {namespace: " + strings.Repeat("n", 63) + ", name: " + strings.Repeat("s", 63) + "}, exportedAt: '2026-01-01T00:00:00Z', type: Headless}", ""},
	{"MemberExport", "web.other", webExport, "name must be <service>.<namespace> of spec.service"},
	{"MemberExport", "web", webExport, "name must be <service>.<namespace> of spec.service"},
	{"MemberExport", "web.shop", "{service: {namespace: shop, name: web}, exportedAt: '2026-01-01T00:00:00Z', type: ExternalName}", "spec.type"},
	{"MemberExport", "web.shop", exportWith("labels: {a: " + strings.Repeat("v", 63) + "}"), ""},
	{"MemberExport", "web.shop", exportWith("labels: {a: " + strings.Repeat("v", 64) + "}"), "a label has at most 316 characters in its key and 63 in its value"},
	{"MemberExport", "web.shop", exportWith("annotations: {a: " + strings.Repeat("v", 16383) + "}"), ""},
	{"MemberExport", "web.shop", exportWith("annotations: {a: " + strings.Repeat("v", 16384) + "}"), "exported annotations have at most 16 KiB in all"},

	{"GatewayParameters", "a", "{}", ""},
	{"GatewayParameters", "a", "{budgets: {regexSteps: 3000, route: {memory: 16Mi}, namespace: {clusters: 0}, gateway: {matchMicroseconds: 1}}}", ""},
	{"GatewayParameters", "a", "{budgets: {regexSteps: 3001}}", "spec.budgets.regexSteps"},
	{"GatewayParameters", "a", "{scope: Global, exposure: Internal}", ""},
	{"GatewayParameters", "a", "{scope: Regional, region: us}", ""},
	{"GatewayParameters", "a", "{scope: Regional}", "scope Regional needs a region, and scope Global has none"},
	{"GatewayParameters", "a", "{region: us}", "scope Regional needs a region, and scope Global has none"},
	{"GatewayParameters", "a", "{scope: Zonal}", "spec.scope"},
	{"GatewayParameters", "a", "{clients: {idleTimeout: 350s}}", ""},
	{"GatewayParameters", "a", "{clients: {http10: {action: Refuse, defaultHost: a.example}, headers: {underscores: Drop, maxKiB: 96, maxCount: 1000, requestID: Replace, forwardedHost: Never}}}", ""},
	{"GatewayParameters", "a", "{clients: {paths: {escapedSlashes: Unescape, doubleSlashes: Merge}}}", ""},
	{"GatewayParameters", "a", "{clients: {http10: {action: Ignore}}}", "spec.clients.http10.action"},
	{"GatewayParameters", "a", `{clients: {http10: {defaultHost: "a b"}}}`, "spec.clients.http10.defaultHost"},
	{"GatewayParameters", "a", "{clients: {headers: {underscores: Maybe}}}", "spec.clients.headers.underscores"},
	{"GatewayParameters", "a", "{clients: {headers: {maxKiB: 8192}}}", "spec.clients.headers.maxKiB"},
	{"GatewayParameters", "a", "{clients: {headers: {maxCount: 100000}}}", "spec.clients.headers.maxCount"},
	{"GatewayParameters", "a", "{clients: {paths: {escapedSlashes: Merge}}}", "spec.clients.paths.escapedSlashes"},
	{"GatewayParameters", "a", "{clients: {idleTimeout: 2h}}", "idleTimeout must be between 1s and 1h"},

	{"MemberCluster", "us-2", "{region: us}", ""},
	{"MemberCluster", strings.Repeat("c", 50), "{accepted: true, region: us, zone: us-a, endpointCIDRs: [10.1.0.0/16, '2001:db8::/48'], capacity: {scaler: 0}}", ""},
	{"MemberCluster", strings.Repeat("c", 51), "{region: us}", "name is a cluster id"},
	{"MemberCluster", "us.west", "{region: us}", "name is a cluster id"},
	{"MemberCluster", "hub", "{region: us}", "name \\\"hub\\\" is kept for the hub's own cluster"},
	{"MemberCluster", "us-2", "{region: us, endpointCIDRs: [10.1.0.0]}", "endpointCIDRs must be CIDRs like 10.1.0.0/16"},
	{"MemberCluster", "us-2", "{region: us, endpointCIDRs: [10.1.0.0/33]}", "endpointCIDRs must be CIDRs like 10.1.0.0/16"},
	{"MemberCluster", "us-2", "{region: us, capacity: {scaler: 101}}", "spec.capacity.scaler"},
	{"MemberCluster", "us-2", "{region: us, local: true, exports: {namespaces: [shop, team-*, '*', default], maxExports: 1, maxEndpointsPerService: 1, maxEndpoints: 1}, imports: {}}", ""},
	{"MemberCluster", "us-2", "{region: us, exports: {namespaces: [kube-system]}}", "namespaces kube-*, crossway-* and member-* are the system's own"},
	{"MemberCluster", "us-2", "{region: us, imports: {namespaces: [crossway-fleet]}}", "namespaces kube-*, crossway-* and member-* are the system's own"},
	{"MemberCluster", "us-2", "{region: us, exports: {namespaces: ['team-[ab]']}}", "spec.exports.namespaces"},
	{"MemberCluster", "us-2", "{region: us, exports: {maxExports: 0}}", "spec.exports.maxExports"},
	{"MemberCluster", "us-2", "{region: us, exports: {maxEndpoints: 1000001}}", "spec.exports.maxEndpoints"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 100, from: 20, startTime: '2026-01-01T00:00:00Z', endTime: '2026-01-01T00:02:00Z'}}", ""},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 0}}", ""},
	{"MemberCluster", "us-2", "{region: us, drain: {}}", "spec.drain.percent"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 101}}", "spec.drain.percent"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 100, from: -1}}", "spec.drain.from"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 100, startTime: '2026-01-01T00:00:00Z'}}", "startTime and endTime belong together"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 100, endTime: '2026-01-01T00:00:00Z'}}", "startTime and endTime belong together"},
	{"MemberCluster", "us-2", "{region: us, drain: {percent: 100, startTime: '2026-01-01T00:00:01Z', endTime: '2026-01-01T00:00:00Z'}}", "endTime must not be before startTime"},
	{"MemberCluster", "us-2", "{}", "spec.region"},
}

// The API server refuses invalid objects, and says why.
func TestObjectsAreValidated(t *testing.T) {
	t.Parallel()
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for _, v := range validations { // not by kubectl, of which each would take as long as all of these
		err := admin.Create(t.Context(), object(t, manifest(v.kind, v.name, v.spec)), client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
		switch {
		case v.refused == "" && err != nil:
			t.Errorf("%s %s %s is refused: %v", v.kind, v.name, v.spec, err)
		case v.refused != "" && (err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `\"`, `"`), strings.ReplaceAll(v.refused, `\"`, `"`))):
			t.Errorf("%s %s %s: %v\nwant a refusal that says %s", v.kind, v.name, v.spec, err, v.refused)
		}
	}
}

// The only rule about updates: an export's service cannot change.
func TestMemberExportKeepsItsService(t *testing.T) {
	export := strings.Replace(webExport, "name: web", "name: kept", 1)
	apply(t, manifest("MemberExport", "kept.shop", export))
	changed := strings.Replace(export, "name: kept", "name: other", 1)
	out, err := kubectl(t, manifest("MemberExport", "kept.shop", changed), "apply", "--server-side", "--force-conflicts", "-f", "-")
	if err == nil || !strings.Contains(out, serviceIsFixed) {
		t.Errorf("%v %s", err, out)
	}
	apply(t, manifest("MemberExport", "kept.shop", strings.Replace(export, "ClusterSetIP", "Headless", 1)))
}

const serviceIsFixed = "service cannot change; delete the export and make another"

// A rule that is added to a CRD needs a case above.
func TestEveryRuleHasACase(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "charts/hub/crds/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d CRDs, %v", len(files), err)
	}
	refusals := []string{serviceIsFixed}
	for _, v := range validations {
		refusals = append(refusals, strings.ReplaceAll(v.refused, `\"`, `"`))
	}
	rules := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		testkit.Must(t, err)
		var crd apiextensions.CustomResourceDefinition
		testkit.Must(t, yaml.UnmarshalStrict(data, &crd))
		walk(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, func(rule apiextensions.ValidationRule) {
			rules++
			for _, r := range refusals {
				if r != "" && strings.HasPrefix(rule.Message, r) {
					return
				}
			}
			t.Errorf("%s: no case is refused by the rule %q", crd.Name, rule.Message)
		})
	}
	if rules < 13 {
		t.Errorf("found %d rules", rules)
	}
}

func walk(schema *apiextensions.JSONSchemaProps, visit func(apiextensions.ValidationRule)) {
	if schema == nil {
		return
	}
	for _, rule := range schema.XValidations {
		visit(rule)
	}
	for _, p := range schema.Properties {
		walk(&p, visit)
	}
	if schema.Items != nil {
		walk(schema.Items.Schema, visit)
	}
	if schema.AdditionalProperties != nil {
		walk(schema.AdditionalProperties.Schema, visit)
	}
}
