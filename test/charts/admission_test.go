package charts

import (
	"context"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
)

// installHub applies the hub's chart and waits until its admission policy is in
// force, which an API server does not say.
func installHub(t *testing.T, values string) client.Client {
	t.Helper()
	apply(t, twoNamespaces+"---\n"+render(t, "hub", values))
	hub, err := client.New(envtestkit.As(t, account+"crossway-hub"), client.Options{})
	testkit.Must(t, err)
	testkit.Eventually(t, "the admission policy is in force", func() bool {
		return apierrors.IsForbidden(hub.Create(t.Context(), object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: not-crossways}}"), client.DryRunAll))
	})
	return hub
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	testkit.Must(t, yaml.Unmarshal([]byte(text), &o.Object))
	return o
}

// What exists before the hub tries: namespaces of members and of others, the
// first with and without the label that the hub gives them, and what is in them.
const hubSurroundings = `
{apiVersion: v1, kind: Namespace, metadata: {name: member-us-7, labels: {crossway.dev/member: us-7}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: member-theirs}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: member-false, labels: {crossway.dev/member: us-7}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: mine, name: crossway-member}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: member-us-7, name: crossway-member}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: crossway-fleet, name: crossway-member}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: member-us-7, name: theirs}, rules: []}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {namespace: mine, name: theirs}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: crossway-member}, subjects: []}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: web}, addressType: IPv4, endpoints: []}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: mine, name: crossway-hub}}
---
{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, metadata: {namespace: member-us-7, name: web.shop}, spec: {service: {namespace: shop, name: web}, exportedAt: "2026-01-01T00:00:00Z", type: ClusterSetIP}}
`

// The rights of the hub's account end at Crossway's own objects: it makes the
// namespaces, Roles and bindings of members as they are, and nobody who takes
// over its pod deletes, grants or redirects anything else.
func TestHubWritesOnlyItsOwn(t *testing.T) {
	hub := installHub(t, "")
	apply(t, hubSurroundings)
	role := func(namespace, rules string) string {
		return "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: " + namespace + ", name: crossway-member}, rules: [" + rules + "]}"
	}
	binding := func(namespace, ref, subject string) string {
		return "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {namespace: " + namespace + ", name: crossway-member}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: " + ref + "}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: " + subject + "}]}"
	}
	const (
		slices = "{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch, create, update, patch, delete]}"
		own    = "Role, name: crossway-member"
	)
	for what, attempts := range map[string]map[string]bool{
		"create": {
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-us-8, labels: {crossway.dev/member: us-8}}}":  true,
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-us-8, labels: {crossway.dev/member: us-7}}}":  false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-us-8}}":                                       false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: anything, labels: {crossway.dev/member: anything}}}": false,
			role("member-us-7", slices): true,
			role("member-us-7", "{apiGroups: [crossway.dev], resources: [memberexports], verbs: [get, create]}"):            true,
			role("member-us-7", "{apiGroups: [''], resources: [secrets], verbs: [get]}"):                                    false,
			role("member-us-7", "{apiGroups: [discovery.k8s.io, ''], resources: [endpointslices, services], verbs: [get]}"): false,
			role("mine", slices):           false,
			role("crossway-fleet", slices): false,
			role("member-us-7", "{apiGroups: [''], resources: [configmaps], resourceNames: [crossway-member-api], verbs: [get, list, watch]}"):                                                                               true,
			role("member-us-7", "{apiGroups: [''], resources: [configmaps], verbs: [get]}"):                                                                                                                                  false,
			role("member-us-7", "{apiGroups: [''], resources: [configmaps], resourceNames: [crossway-member-api], verbs: [delete]}"):                                                                                         false,
			strings.Replace(role("member-us-7", slices), "name: crossway-member", "name: mine", 1):                                                                                                                           false,
			binding("member-us-7", own, "User, name: 'crossway:member:us-7'"):                                                                                                                                                false,
			binding("member-us-7", own, "User, name: 'crossway:member:us-8:aaaaaaaaaa'"):                                                                                                                                     false,
			binding("member-us-7", own, "Group, name: 'system:authenticated'"):                                                                                                                                               false,
			binding("member-us-7", "ClusterRole, name: crossway-developer", "User, name: 'crossway:member:us-7'"):                                                                                                            false,
			binding("mine", own, "User, name: 'crossway:member:us-7'"):                                                                                                                                                       false,
			binding("crossway-fleet", own, "Group, name: 'crossway:members'"):                                                                                                                                                false,
			binding("member-us-7", own, "User, name: 'crossway:member:us-7:aaaaaaaaaa'"):                                                                                                                                     true,
			binding("member-us-7", own, "User, name: 'crossway:member:us-77:aaaaaaaaaa'"):                                                                                                                                    false,
			binding("member-us-7", own, "User, name: 'system:serviceaccount:crossway-members:us-7.aaaaaaaaaa'"):                                                                                                              true,
			binding("member-us-7", own, "User, name: 'system:serviceaccount:crossway-members:us-8.aaaaaaaaaa'"):                                                                                                              false,
			"{apiVersion: v1, kind: ConfigMap, metadata: {namespace: member-us-7, name: crossway-member-api}}":                                                                                                               true,
			"{apiVersion: v1, kind: ConfigMap, metadata: {namespace: crossway-fleet, name: crossway-member-api}}":                                                                                                            false,
			"{apiVersion: v1, kind: ConfigMap, metadata: {namespace: member-us-7, name: other}}":                                                                                                                             false,
			"{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: crossway-members, name: us-7.aaaaaaaaaa}}":                                                                                                         true,
			"{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: crossway-members, name: join.us-7.aaaaaaaaaa}}":                                                                                                    false,
			"{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: mine, name: us-7.aaaaaaaaaa}}":                                                                                                                     false,
			binding("crossway-fleet", own, "Group, name: 'system:unauthenticated'"):                                                                                                                                          false,
			"{apiVersion: v1, kind: Secret, metadata: {namespace: crossway-system, name: crossway-xds}}":                                                                                                                     true,
			"{apiVersion: v1, kind: Secret, metadata: {namespace: crossway-system, name: crossway-hub-replica}}":                                                                                                             true,
			"{apiVersion: v1, kind: Secret, metadata: {namespace: crossway-system, name: other}}":                                                                                                                            false,
			"{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: crossway-system, name: crossway-hub}}":                                                                                                  true,
			"{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: kube-system, name: kube-scheduler}}":                                                                                                    false,
			"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: member-us-7, name: forged}, addressType: IPv4, endpoints: []}":                                                                     false,
			"{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, metadata: {namespace: member-us-7, name: x.shop}, spec: {service: {namespace: shop, name: x}, exportedAt: '2026-01-01T00:00:00Z', type: ClusterSetIP}}": false,
		},
		"delete": {
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-us-7}}":                                                               true,
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-theirs}}":                                                             false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-false}}":                                                              false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: mine}}":                                                                      false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: crossway-fleet}}":                                                            false,
			"{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: mine, name: crossway-member}}":                     false,
			"{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: member-us-7, name: theirs}}":                       false,
			"{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {namespace: mine, name: theirs}}":                       false,
			"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: web}}":                                 false,
			"{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, metadata: {namespace: member-us-7, name: web.shop}}":                    true,
			"{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: mine, name: crossway-hub}}":                             false,
			"{apiVersion: v1, kind: Secret, metadata: {namespace: crossway-system, name: crossway-edge-ca}}":                                 false,
			"{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: crossway-hub}}":                                  false,
			"{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: crossway-hub-crossway-system}}": false,
		},
		"label": {
			"{apiVersion: v1, kind: Namespace, metadata: {name: mine}}":                                                   false,
			"{apiVersion: v1, kind: Namespace, metadata: {name: member-us-7}}":                                            false,
			"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: web}}":              false,
			"{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, metadata: {namespace: member-us-7, name: web.shop}}": false,
		},
	} {
		for text, allowed := range attempts {
			var err error
			switch o := object(t, text); what {
			case "create":
				err = hub.Create(t.Context(), o, client.DryRunAll)
			case "delete":
				err = hub.Delete(t.Context(), o, client.DryRunAll)
			case "label":
				err = hub.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)), client.DryRunAll)
			}
			if forbidden := apierrors.IsForbidden(err); forbidden == allowed {
				t.Errorf("%s %s: allowed is %v; got %v", what, text, allowed, err)
			} else if !forbidden && err != nil && !apierrors.IsAlreadyExists(err) {
				t.Errorf("%s %s: %v", what, text, err)
			}
		}
	}
}

// The policy is about the hub's account alone: administrators and members do
// what they could do before.
func TestHubsPolicyConcernsNobodyElse(t *testing.T) {
	installHub(t, "")
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for _, text := range []string{
		"{apiVersion: v1, kind: Namespace, metadata: {name: anything}}",
		"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: mine, name: slice}, addressType: IPv4, endpoints: []}",
		"{apiVersion: v1, kind: Secret, metadata: {namespace: mine, name: secret}}",
	} {
		if err := admin.Create(context.Background(), object(t, text), client.DryRunAll); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// With secretNamespaces the hub reads Secrets there and in its own namespace,
// and nowhere else.
func TestHubReadsSecretsOfListedNamespaces(t *testing.T) {
	installHub(t, "")
	if out, err := kubectl(t, "", "delete", "clusterrole", "crossway-hub"); err != nil { // of the other tests' values
		t.Fatalf("%v %s", err, out)
	}
	hub := envtestkit.As(t, account+"crossway-hub")
	installHub(t, "secretNamespaces={mine}")
	t.Cleanup(func() {
		for _, namespace := range []string{"mine", "crossway-system"} {
			_, _ = kubectl(t, "", "delete", "rolebinding", "crossway-hub-secrets", "-n", namespace)
		}
	})
	may(t, hub, true, "mine", "list secret\nget secret")
	may(t, hub, true, "crossway-system", "list secret\nget secret")
	may(t, hub, false, "theirs", "list secret\nget secret")
	may(t, hub, false, "mine", "create secret\ndelete secret")
}
