package hostile

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

var usual = registration.Limits{Exports: 500, EndpointsPerService: 2000, Endpoints: 20000}

// A member writes exports, slices and one Lease in its own namespace, and nothing
// else anywhere.
func TestMemberWritesNowhereElse(t *testing.T) {
	h := newHub(t, "h-west", usual)
	neighbour := registration.Objects("h-east", usual)
	h.Must(h.admin.Create(t.Context(), &neighbour.Namespace))
	h.Must(client.IgnoreAlreadyExists(h.admin.Create(t.Context(), registration.FleetNamespace())))
	in := func(namespace string, o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetNamespace(namespace)
		return o
	}
	attempts := map[string]*unstructured.Unstructured{
		"an export of another member": in("member-h-east", h.export("store", "")),
		"a slice of another member":   in("member-h-east", h.slice("store-1", 1, "")),
		"a Lease of another member":   in("member-h-east", h.object("Lease", v1alpha1.AgentLease, "{}")),
		"an export in no member's":    in("default", h.export("store", "")),
		"a slice of a Service":        in("default", h.slice("kubernetes", 1, "")),
		"a FleetService":              in("crossway-fleet", h.object("FleetService", "store.shop", "{spec: {service: {name: store, namespace: shop}, type: ClusterSetIP, clusters: []}}")),
		"a ServiceImport":             h.object("ServiceImport", "store", "{spec: {type: ClusterSetIP, ports: [{port: 80}]}}"),
		"a Secret":                    h.object("Secret", "a", "{}"),
		"a Pod":                       h.object("Pod", "a", "{spec: {containers: [{name: a, image: a}]}}"),
		"a Role":                      h.object("Role", "a", "{rules: []}"),
		"a route":                     h.object("HTTPRoute", "a", "{spec: {}}"),
		"a quota of its own":          h.object("ResourceQuota", "a", "{}"),
		"a member":                    in("", h.object("MemberCluster", "h-north", "{spec: {region: us, accepted: true}}")),
		"a namespace":                 in("", h.object("Namespace", "member-h-north", "{}")),
	}
	for what, o := range attempts {
		if err := h.agent.Create(t.Context(), o, client.DryRunAll); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.Must(h.agent.Create(t.Context(), h.export("store", "")))
	for what, err := range map[string]error{
		"its quota":           h.agent.Delete(t.Context(), h.object("ResourceQuota", registration.RoleName, "{}")),
		"its Role":            h.agent.Delete(t.Context(), h.object("Role", registration.RoleName, "{}")),
		"its namespace":       h.agent.Delete(t.Context(), in("", h.object("Namespace", "member-h-west", "{}"))),
		"all at once":         h.agent.DeleteAllOf(t.Context(), h.export("store", ""), client.InNamespace("member-h-west")),
		"status of an export": h.agent.Status().Patch(t.Context(), h.export("store", ""), client.RawPatch("application/merge-patch+json", []byte(`{"status":{"conditions":[]}}`))),
		"a neighbour's list":  h.agent.List(t.Context(), listOf("MemberExport"), client.InNamespace("member-h-east")),
		"everybody's list":    h.agent.List(t.Context(), listOf("EndpointSlice")),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func listOf(kind string) client.ObjectList {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(groups[kind])
	list.SetKind(kind + "List")
	return list
}

// Objects of a form or size that no agent writes are refused, and the answer says
// what is wrong.
func TestObjectsOfAMember(t *testing.T) {
	h := newHub(t, "f-west", usual)
	ports := "[" + strings.Repeat("{name: a, port: 1},", 101) + "]"
	portless := h.slice("store-1", 1, "")
	portless.Object["ports"] = h.object("EndpointSlice", "x", "{ports: "+ports+"}").Object["ports"]
	for i, p := range portless.Object["ports"].([]any) {
		p.(map[string]any)["name"] = fmt.Sprint("p", i)
	}
	twoAddresses := h.slice("store-1", 1, "")
	twoAddresses.Object["endpoints"] = []any{map[string]any{"addresses": []any{"10.1.0.1", "10.1.0.2"}}}
	long := strings.Repeat("x", 100<<10)
	labels := map[string]string{}
	annotations := map[string]string{}
	for i := range 40 {
		labels[fmt.Sprint("l", i)], annotations[fmt.Sprint("example.com/a", i)] = "x", strings.Repeat("x", 500)
	}
	labelled := h.export("store", "")
	labelled.SetLabels(labels)
	exported := h.export("store", "")
	exported.Object["spec"].(map[string]any)["annotations"] = toAny(annotations)
	for what, test := range map[string]struct {
		object *unstructured.Unstructured
		want   string // "": it is taken
	}{
		"an export":                        {h.export("store", ""), ""},
		"a slice":                          {h.slice("store-1", 100, ", zone: us-a, hostname: a, conditions: {ready: true, serving: true, terminating: false}"), ""},
		"a slice without ports":            {h.object("EndpointSlice", "store-1", "{addressType: IPv4, endpoints: [{addresses: [10.1.0.1]}]}"), ""},
		"a slice without endpoints":        {h.object("EndpointSlice", "store-1", "{addressType: IPv4, endpoints: null}"), ""},
		"an owner":                         {h.with(h.slice("store-1", 1, ""), "{ownerReferences: [{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, name: store.shop, uid: a}]}"), ""},
		"a slice with a finalizer":         {h.with(h.slice("store-1", 1, ""), "{finalizers: [example.com/never]}"), "no finalizers"},
		"an export with a finalizer":       {h.with(h.export("store", ""), "{finalizers: [example.com/never]}"), "no finalizers"},
		"a Lease with a finalizer":         {h.with(h.object("Lease", v1alpha1.AgentLease, "{}"), "{finalizers: [example.com/never]}"), "no finalizers"},
		"a foreign owner":                  {h.with(h.slice("store-1", 1, ""), "{ownerReferences: [{apiVersion: v1, kind: Namespace, name: kube-system, uid: a}]}"), "no owner, or a MemberExport"},
		"many owners":                      {h.with(h.slice("store-1", 1, ""), "{ownerReferences: [{apiVersion: crossway.dev/v1alpha1, kind: MemberExport, name: a, uid: a}, {apiVersion: crossway.dev/v1alpha1, kind: MemberExport, name: b, uid: b}]}"), "no owner, or a MemberExport"},
		"long annotations":                 {h.with(h.export("store", ""), "{annotations: {example.com/a: "+long+"}}"), "4 KiB of annotations"},
		"a slice with long annotations":    {h.with(h.slice("store-1", 1, ""), "{annotations: {example.com/a: "+long+"}}"), "4 KiB of annotations"},
		"many labels":                      {labelled, "at most 16 labels"},
		"long exported annotations":        {exported, "at most 16 KiB"},
		"one long exported annotation":     {h.export("store", ", annotations: {example.com/a: "+long+"}"), "at most 16 KiB"},
		"a long exported label":            {h.export("store", ", labels: {example.com/a: "+strings.Repeat("x", 64)+"}"), "63 in its value"},
		"another Lease":                    {h.object("Lease", "other", "{}"), "one Lease, crossway-agent"},
		"a Lease with a long holder":       {h.object("Lease", v1alpha1.AgentLease, "{spec: {holderIdentity: "+long+"}}"), "256 characters"},
		"many endpoints":                   {h.slice("store-1", 101, ""), "at most 100 endpoints"},
		"many ports":                       {portless, "100 ports"},
		"many addresses":                   {twoAddresses, "one address"},
		"a long zone":                      {h.slice("store-1", 1, ", zone: "+long), "one address"},
		"a reference to a Pod":             {h.slice("store-1", 1, ", targetRef: {kind: Pod, name: a, namespace: kube-system}"), "one address"},
		"a node":                           {h.slice("store-1", 1, ", nodeName: "+strings.Repeat("n", 200)), "one address"},
		"hints":                            {h.slice("store-1", 1, ", hints: {forZones: [{name: a}]}"), "one address"},
		"an export under another name":     {h.object("MemberExport", "api.shop", h.yamlOf(h.export("store", ""))), "name must be"},
		"a service that is no name":        {h.export("a_b", ""), "spec.service.name"},
		"a protocol that is none":          {h.export("store", ", ipFamilies: [IPv9]"), "spec.ipFamilies"},
		"an application protocol too long": {h.export("store", ", trafficDistribution: "+strings.Repeat("x", 64)), "spec.trafficDistribution"},
	} {
		err := h.agent.Create(t.Context(), test.object, client.DryRunAll)
		if test.want != "" {
			h.refused(what, err, test.want)
		} else if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}

	h.Must(h.agent.Create(t.Context(), h.slice("store-2", 1, "")))
	finalizer := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":["example.com/never"]}}`))
	h.refused("a finalizer by a patch", h.agent.Patch(t.Context(), h.slice("store-2", 1, ""), finalizer), "no finalizers")
	for i := range 20 { // each manager of server-side apply takes room in the object
		one := h.with(h.slice("store-3", 1, ""), fmt.Sprintf("{labels: {crossway.dev/service-name: store, l%d: x}}", i%10))
		err := h.agent.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(one), client.FieldOwner(fmt.Sprint("manager-", i)), client.ForceOwnership)
		if i == 19 {
			h.refused("20 managers of fields", err, "16 field managers")
		}
	}
}

func toAny(all map[string]string) map[string]any {
	out := map[string]any{}
	for key, value := range all {
		out[key] = value
	}
	return out
}

func (h *hub) yamlOf(o *unstructured.Unstructured) string {
	h.Helper()
	data, err := o.MarshalJSON()
	h.Must(err)
	return string(data)
}

// The API server takes as many objects as the member's limits allow, and says
// which quota was reached. A deletion makes room, and an update needs none.
func TestManyObjects(t *testing.T) {
	h := newHub(t, "q-west", registration.Limits{Exports: 3, EndpointsPerService: 100, Endpoints: 100})
	for i := range 3 {
		h.Must(h.agent.Create(t.Context(), h.export(fmt.Sprint("store", i), "")))
	}
	h.refused("a fourth export", h.agent.Create(t.Context(), h.export("store3", "")), "exceeded quota: crossway-member")
	slices := 0
	var err error
	for ; err == nil && slices < 50; slices++ {
		err = h.agent.Create(t.Context(), h.slice(fmt.Sprint("store-", slices), 1, ""))
	}
	h.refused("one slice more than 8", err, "exceeded quota: crossway-member")
	if slices != 9 {
		t.Errorf("%d slices are taken, want 8: one of each family for each export, and 100 endpoints of each family", slices-1)
	}
	h.Must(h.agent.Patch(t.Context(), h.slice("store-0", 1, ""), client.RawPatch("application/merge-patch+json", []byte(`{"endpoints":[]}`))))
	h.Must(h.agent.Delete(t.Context(), h.slice("store-0", 1, "")))
	h.Eventually("there is room for a slice again", func() bool { return h.agent.Create(t.Context(), h.slice("store-8", 1, "")) == nil })
}

// A member whose MemberCluster is gone leaves nothing: no object of its namespace
// keeps it from ending.
func TestNothingKeepsANamespace(t *testing.T) {
	h := newHub(t, "n-west", usual)
	h.Must(h.agent.Create(t.Context(), h.export("store", "")))
	h.Must(h.agent.Create(t.Context(), h.slice("store-1", 1, "")))
	foreground := metav1.DeletePropagationForeground
	h.Must(h.agent.Delete(t.Context(), h.export("store", ""), &client.DeleteOptions{PropagationPolicy: &foreground}))
	namespace := h.object("Namespace", "member-n-west", "{}")
	namespace.SetNamespace("")
	h.Must(h.admin.Delete(t.Context(), namespace))
	testkit.Eventually(t, "the namespace is gone", func() bool {
		return apierrors.IsNotFound(h.admin.Get(t.Context(), client.ObjectKey{Name: "member-n-west"}, namespace))
	})
}

// Requests of members are in a level of their own at the API server, with a fair
// share for each.
func TestRequestsHaveALevelOfTheirOwn(t *testing.T) {
	h := newHub(t, "p-west", usual)
	schema := h.object("FlowSchema", "crossway-hub-crossway-system-members", "{}")
	schema.SetAPIVersion("flowcontrol.apiserver.k8s.io/v1")
	schema.SetNamespace("")
	h.Must(h.admin.Get(t.Context(), client.ObjectKeyFromObject(schema), schema))
	uid := string(schema.GetUID())
	testkit.Eventually(t, "a request of a member is of the FlowSchema", func() bool { return h.flowSchemaOf("p-west") == uid })
}
