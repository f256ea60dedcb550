package charts

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
)

// What a cluster has: an import of the agent's, and what others made.
const agentSurroundings = `
{apiVersion: v1, kind: Service, metadata: {namespace: mine, name: crossway-made, labels: {app.kubernetes.io/managed-by: crossway.dev}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: mine, name: web}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: mine, name: crossway-theirs}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: imported, labels: {endpointslice.kubernetes.io/managed-by: imports.crossway.dev}}, addressType: IPv4, endpoints: []}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: web-1, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: []}
---
{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {namespace: mine, name: theirs}, spec: {type: Headless, ports: []}}
`

// The rights of the agent's account end at imports: whoever takes over its pod
// gives no Service of others an endpoint, an address or a selector, and deletes none.
func TestAgentWritesOnlyImports(t *testing.T) {
	apply(t, twoNamespaces+"---\n"+render(t, "member-agent", ""))
	agent, err := client.New(envtestkit.As(t, account+"crossway-member-agent"), client.Options{})
	testkit.Must(t, err)
	apply(t, agentSurroundings)
	service := func(name, labels, spec string) string {
		return "{apiVersion: v1, kind: Service, metadata: {namespace: mine, name: " + name + ", labels: {" + labels + "}}, spec: {ports: [{port: 80}]" + spec + "}}"
	}
	slice := func(name, labels string) string {
		return "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: " + name + ", labels: {" + labels + "}}, addressType: IPv4, endpoints: []}"
	}
	const (
		ours     = "app.kubernetes.io/managed-by: crossway.dev"
		imported = "endpointslice.kubernetes.io/managed-by: imports.crossway.dev"
	)
	testkit.Eventually(t, "the admission policy is in force", func() bool {
		return apierrors.IsForbidden(agent.Create(t.Context(), object(t, service("other", "", "")), client.DryRunAll))
	})
	for what, attempts := range map[string]map[string]bool{
		"create": {
			service("crossway-new", ours, ""):                                 true,
			service("crossway-new", "", ""):                                   false,
			service("new", ours, ""):                                          false,
			service("crossway-new", ours, ", selector: {app: web}"):           false,
			service("crossway-new", ours, ", externalIPs: [192.0.2.1]"):       false,
			service("crossway-new", ours, ", type: LoadBalancer"):             false,
			service("crossway-new", ours, ", type: NodePort"):                 false,
			slice("new", imported):                                            true,
			slice("new", imported+", kubernetes.io/service-name: crossway-1"): true,
			slice("new", imported+", kubernetes.io/service-name: web"):        false,
			slice("new", ""): false,
		},
		"label": {
			service("crossway-made", "", ""):   true,
			service("web", "", ""):             false,
			service("crossway-theirs", "", ""): false,
			slice("imported", ""):              true,
			slice("web-1", ""):                 false,
			"{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {namespace: mine, name: theirs}}": false,
		},
		"delete": {
			service("crossway-made", "", ""):   true,
			service("web", "", ""):             false,
			service("crossway-theirs", "", ""): false,
			slice("imported", ""):              true,
			slice("web-1", ""):                 false,
			"{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {namespace: mine, name: theirs}}": false,
		},
	} {
		for text, allowed := range attempts {
			var err error
			switch o := object(t, text); what {
			case "create":
				err = agent.Create(t.Context(), o, client.DryRunAll)
			case "delete":
				err = agent.Delete(t.Context(), o, client.DryRunAll)
			case "label":
				// others' objects are made its own: their labels are what is changed
				patch := `{"metadata":{"labels":{"a":"b","app.kubernetes.io/managed-by":"crossway.dev"}}}`
				if strings.Contains(text, "EndpointSlice") {
					patch = `{"metadata":{"labels":{"a":"b","endpointslice.kubernetes.io/managed-by":"imports.crossway.dev"}}}`
				}
				err = agent.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll)
			}
			if forbidden := apierrors.IsForbidden(err); forbidden == allowed || !forbidden && err != nil {
				t.Errorf("%s %s: allowed is %v; got %v", what, text, allowed, err)
			}
		}
	}
}
