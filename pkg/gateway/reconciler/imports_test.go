package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

const exportingMember = `
apiVersion: crossway.dev/v1alpha1
kind: MemberCluster
metadata: {name: NAME}
spec: {accepted: true, region: us, endpointCIDRs: [10.1.0.0/16], exports: {namespaces: ['*']}}`

const exportOfStore = `
apiVersion: crossway.dev/v1alpha1
kind: MemberExport
metadata: {name: store.NAME, namespace: member-NAME}
spec: {service: {name: store, namespace: NAME}, exportedAt: "2026-01-01T00:00:00Z", type: ClusterSetIP, ports: [{name: web, port: 80, protocol: TCP}]}`

// Routes are served from what members export. There is no FleetService in this
// test, as after somebody deleted them all, and the route has its backend; only
// the withdrawal of the export takes it away.
func TestImportsComeFromExports(t *testing.T) {
	h := newHub(t)
	h.start()
	h.must(h.api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-" + h.name, Labels: map[string]string{v1alpha1.LabelMember: h.name}}}))
	h.apply(fleetOfOne)
	h.apply(exportingMember)
	h.apply(exportOfStore)
	h.apply(strings.ReplaceAll(routeTo("a", "/a"), "{name: store, port: 80}", "{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 80}"))
	h.pass()
	if got := h.conditionOf(condition.HTTPRoute, "a", "ResolvedRefs"); got != "True ResolvedRefs" {
		t.Errorf("with an export: %s", got)
	}
	before := h.loop.input.Imports
	h.pass()
	if !model.SameSlice(before, h.loop.input.Imports) {
		t.Error("equal exports made other imports, so that every route is built again")
	}

	namespace := &corev1.Namespace{}
	h.must(h.api.Get(t.Context(), client.ObjectKey{Name: "member-" + h.name}, namespace))
	for _, owned := range []bool{false, true} {
		namespace.Labels[v1alpha1.LabelMember] = map[bool]string{true: h.name, false: "another"}[owned]
		h.must(h.api.Update(t.Context(), namespace))
		namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
		h.awaitCaches(namespace)
		h.pass()
		want := map[bool]string{true: "True ResolvedRefs", false: "False BackendNotFound"}[owned]
		if got := h.conditionOf(condition.HTTPRoute, "a", "ResolvedRefs"); got != want {
			t.Errorf("namespace is the member's %v: %s, want %s", owned, got, want)
		}
	}

	member := &v1alpha1.MemberCluster{}
	h.must(h.api.Get(t.Context(), client.ObjectKey{Name: h.name}, member))
	for _, allowed := range []v1alpha1.NamespacePattern{"others", v1alpha1.NamespacePattern(h.name)} {
		member.Spec.Exports.Namespaces = []v1alpha1.NamespacePattern{allowed}
		h.must(h.api.Update(t.Context(), member))
		member.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MemberCluster"))
		h.awaitCaches(member)
		h.pass()
		want := map[bool]string{true: "True ResolvedRefs", false: "False BackendNotFound"}[allowed != "others"]
		if got := h.conditionOf(condition.HTTPRoute, "a", "ResolvedRefs"); got != want {
			t.Errorf("may export %s: %s, want %s", allowed, got, want)
		}
	}
	for _, accepted := range []bool{false, true} {
		member.Spec.Accepted = accepted
		h.must(h.api.Update(t.Context(), member))
		member.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MemberCluster"))
		h.awaitCaches(member)
		h.pass()
		want := map[bool]string{true: "True ResolvedRefs", false: "False BackendNotFound"}[accepted]
		if got := h.conditionOf(condition.HTTPRoute, "a", "ResolvedRefs"); got != want {
			t.Errorf("accepted %v: %s, want %s", accepted, got, want)
		}
	}

	export := &v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + h.name, Name: "store." + h.name}}
	h.must(h.api.Delete(t.Context(), export))
	export.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MemberExport"))
	h.awaitCaches(export)
	h.pass()
	if got := h.conditionOf(condition.HTTPRoute, "a", "ResolvedRefs"); got != "False BackendNotFound" {
		t.Errorf("without an export: %s", got)
	}
}

// An export that changes has its service merged again, and no other: what comes of it is what a merge of all gives.
func TestOneExportChanges(t *testing.T) {
	h := newHub(t)
	h.start()
	h.must(h.loop.imports.index(t.Context(), h.loop.options.Cache))
	h.must(h.api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-" + h.name, Labels: map[string]string{v1alpha1.LabelMember: h.name}}}))
	h.apply(exportingMember)
	h.apply(exportOfStore)
	h.pass()
	kind := slices.IndexFunc(h.loop.kinds, func(k watchedKind) bool { _, is := k.object.(*v1alpha1.MemberExport); return is })
	events := h.loop.handler(kind, h.loop.kinds[kind])
	read := func(name string) *v1alpha1.MemberExport {
		e := &v1alpha1.MemberExport{}
		h.must(h.loop.options.Cache.Get(t.Context(), client.ObjectKey{Namespace: "member-" + h.name, Name: name + "." + h.name}, e))
		return e
	}
	// check runs a pass, and says which services Build gets and with how many ports.
	check := func(what, want string, builds bool) {
		t.Helper()
		built, err := h.loop.pass(t.Context())
		h.must(err)
		if built != builds {
			t.Errorf("%s: built %v, want %v", what, built, builds)
		}
		var got []string
		for _, i := range h.loop.input.Imports {
			if i.Spec.Service.Namespace == h.name {
				got = append(got, fmt.Sprint(i.Spec.Service.Name, " ", len(i.Spec.Ports)))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		var whole gateway.Input
		all := imports{merges: importhub.NewMerges(h.loop.options.Cache)}
		h.must(all.list(t.Context(), h.loop.options.Cache, &whole))
		if !equality.Semantic.DeepEqual(whole.Imports, h.loop.input.Imports) {
			t.Errorf("%s: a merge of all gives %+v, not %+v", what, whole.Imports, h.loop.input.Imports)
		}
	}
	before := h.loop.input.Imports
	events.OnAdd(read("store"), false)
	check("nothing changed", "store 1", false)
	if !model.SameSlice(before, h.loop.input.Imports) {
		t.Error("equal exports made other imports")
	}
	h.apply(strings.ReplaceAll(exportOfStore, "store", "cart"))
	events.OnAdd(read("cart"), false)
	check("another service", "cart 1, store 1", true)

	last := read("store")
	h.apply(strings.ReplaceAll(exportOfStore, "ports: [", "ports: [{name: admin, port: 81, protocol: TCP}, "))
	events.OnUpdate(last, read("store"))
	check("another port", "cart 1, store 2", true)

	last = read("store")
	h.must(h.api.Delete(t.Context(), last.DeepCopy()))
	last.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MemberExport"))
	h.awaitCaches(last)
	events.OnDelete(toolscache.DeletedFinalStateUnknown{Key: last.Namespace + "/" + last.Name, Obj: last})
	check("one is gone", "cart 1", true)
}
