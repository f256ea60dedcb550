package charts

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// kinds has a valid object of each kind that people and programs of a fleet use,
// by the names in the tables below.
var kinds = map[string]string{
	"membercluster":      manifest("MemberCluster", "probe", "{region: us}"),
	"edgepool":           manifest("EdgePool", "probe", usPool),
	"gatewayparameters":  manifest("GatewayParameters", "probe", "{}"),
	"backendpolicy":      manifest("BackendPolicy", "probe", "{"+storeRef+"}"),
	"memberexport":       manifest("MemberExport", "web.shop", webExport),
	"fleetservice":       manifest("FleetService", "web.shop", "{service: {namespace: shop, name: web}, type: ClusterSetIP, clusters: []}"),
	"gatewayclass":       "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: probe}, spec: {controllerName: crossway.dev/gateway}}",
	"gateway":            "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {namespace: default, name: probe}, spec: {gatewayClassName: probe, listeners: [{name: http, protocol: HTTP, port: 80}]}}",
	"httproute":          "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {namespace: default, name: probe}, spec: {}}",
	"referencegrant":     "{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {namespace: default, name: probe}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}]}}",
	"serviceexport":      "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {namespace: default, name: probe}}",
	"serviceimport":      "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {namespace: default, name: probe}, spec: {type: ClusterSetIP, ports: [{port: 80, protocol: TCP}]}}",
	"secret":             "{apiVersion: v1, kind: Secret, metadata: {namespace: default, name: probe}}",
	"service":            "{apiVersion: v1, kind: Service, metadata: {namespace: default, name: probe}, spec: {ports: [{port: 80}]}}",
	"endpointslice":      "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: default, name: probe}, addressType: IPv4, endpoints: []}",
	"lease":              "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {namespace: default, name: probe}}",
	"controllerrevision": "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {namespace: default, name: probe}, data: {}, revision: 1}",
	"node":               "{apiVersion: v1, kind: Node, metadata: {name: probe}}",
	"pod":                "{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: probe}, spec: {containers: [{name: a, image: a}]}}",
	"namespace":          "{apiVersion: v1, kind: Namespace, metadata: {name: probe}}",
	"clusterrole":        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: probe}}",
	"clusterbinding":     "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: probe}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}",
}

// attempt makes one request to the API server, as a dry run.
func attempt(t *testing.T, as *rest.Config, verb, kind, namespace string) error {
	t.Helper()
	c, err := client.New(as, client.Options{})
	testkit.Must(t, err)
	var o unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(kinds[kind]), &o.Object); err != nil || len(o.Object) == 0 {
		t.Fatalf("no object for %q: %v", kind, err)
	}
	if o.GetNamespace() != "" {
		o.SetNamespace(namespace)
	}
	ctx := t.Context()
	switch verb {
	case "create":
		return c.Create(ctx, &o, client.DryRunAll)
	case "delete":
		return client.IgnoreNotFound(c.Delete(ctx, &o, client.DryRunAll))
	case "get":
		return client.IgnoreNotFound(c.Get(ctx, client.ObjectKeyFromObject(&o), &o))
	case "status":
		return client.IgnoreNotFound(c.Status().Patch(ctx, &o, client.RawPatch("application/merge-patch+json", []byte(`{}`)), &client.SubResourcePatchOptions{PatchOptions: client.PatchOptions{DryRun: []string{metav1.DryRunAll}}}))
	case "list":
		list := &unstructured.UnstructuredList{}
		gvk := o.GroupVersionKind()
		gvk.Kind += "List"
		list.SetGroupVersionKind(gvk)
		return c.List(ctx, list, client.InNamespace(o.GetNamespace()))
	}
	t.Fatalf("unknown verb %q", verb)
	return nil
}

// may tries lines like "create gateway,httproute" in a namespace.
func may(t *testing.T, as *rest.Config, allowed bool, namespace, lines string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(lines), "\n") {
		verb, all, _ := strings.Cut(strings.TrimSpace(line), " ")
		for kind := range strings.SplitSeq(all, ",") {
			err := attempt(t, as, verb, kind, namespace)
			if forbidden := apierrors.IsForbidden(err); forbidden == allowed {
				t.Errorf("%s %s in %s: allowed is %v; got %v", verb, kind, namespace, allowed, err)
			} else if !forbidden && err != nil && !apierrors.IsAlreadyExists(err) {
				t.Errorf("%s %s in %s: %v", verb, kind, namespace, err)
			}
		}
	}
}

// bind gives a role to a user, in the whole cluster where namespace is empty.
func bind(t *testing.T, kind, role, namespace, user string) {
	t.Helper()
	c, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	meta := metav1.ObjectMeta{Namespace: namespace, Name: role + "-" + user}
	var o client.Object = &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	if namespace == "" {
		o = &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	}
	testkit.Must(t, c.Create(t.Context(), o))
	t.Cleanup(func() { _ = c.Delete(context.Background(), o) })
}

const twoNamespaces = systemNamespace + `---
{apiVersion: v1, kind: Namespace, metadata: {name: mine}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: theirs}}
`

// The fleet admin decides which clusters are members and where edges are, and
// reads everything about traffic without changing any of it.
func TestFleetAdmin(t *testing.T) {
	apply(t, twoNamespaces+"---\n"+render(t, "hub", ""))
	bind(t, "ClusterRole", "crossway-fleet-admin", "", "fay")
	fay := envtestkit.As(t, "fay")
	may(t, fay, true, "mine", `
		create membercluster,edgepool
		delete membercluster,edgepool
		list membercluster,edgepool,memberexport,fleetservice,backendpolicy,gatewayparameters,gateway,gatewayclass,httproute,serviceimport`)
	may(t, fay, false, "mine", `
		create gateway,gatewayclass,httproute,backendpolicy,gatewayparameters,memberexport,fleetservice,clusterrole,clusterbinding
		status membercluster,edgepool
		list secret,pod
		get secret`)
	may(t, fay, false, "crossway-system", "create secret\nget secret")
	reads(t, fay, "crossway-system", &coordinationv1.Lease{}, "crossway-hub", false)
	bind(t, "Role", "crossway-load-reader", "crossway-system", "fay")
	reads(t, fay, "", &apiextensionsv1.CustomResourceDefinition{}, "gateways.gateway.networking.k8s.io", true) // all that crossway check reads, but for keys
	reads(t, fay, "member-us-west", &coordinationv1.Lease{}, v1alpha1.AgentLease, true)
	reads(t, fay, "crossway-system", &coordinationv1.Lease{}, "crossway-hub", true)
	reads(t, fay, "crossway-system", &coordinationv1.Lease{}, "other", false)
	reads(t, fay, "crossway-system", &appsv1.Deployment{}, "crossway-hub", true)
	reads(t, fay, "mine", &appsv1.Deployment{}, "crossway-hub", false)
	may(t, fay, true, "crossway-system", "list pod\nget pod")
	may(t, fay, false, "crossway-system", "create pod\ndelete pod\nget secret")
	for subresource, allowed := range map[string]bool{"portforward": true, "exec": false, "log": false, "proxy": false} {
		usesPods(t, fay, "crossway-system", subresource, allowed)
		usesPods(t, fay, "mine", subresource, false)
	}
	bind(t, "Role", "crossway-edge-signer", "crossway-system", "fay")
	may(t, fay, false, "crossway-system", "create secret\nget secret\nlist secret\ndelete secret")
	may(t, fay, false, "mine", "create secret\nget secret")
	signs(t, fay, registration.EdgeCASecret, true, true)
	signs(t, fay, "crossway-edge-us", false, false)

	// With the pools whose edges are in this cluster, their Secrets too.
	apply(t, render(t, "hub", "personas.edgePools={us}"))
	signs(t, fay, registration.EdgeCASecret, true, true)
	signs(t, fay, "crossway-edge-us", true, true)
	signs(t, fay, "crossway-edge-eu", false, false)
	signs(t, fay, registration.XDSSecret, false, false)
	apply(t, render(t, "hub", ""))
}

// reads gets one object, which there may not be.
func reads(t *testing.T, as *rest.Config, namespace string, o client.Object, name string, allowed bool) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		testkit.Must(t, add(scheme))
	}
	c, err := client.New(as, client.Options{Scheme: scheme})
	testkit.Must(t, err)
	err = c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	if allowed == apierrors.IsForbidden(err) {
		t.Errorf("get %T %s/%s: %v", o, namespace, name, err)
	}
}

// usesPods asks whether somebody may use a subresource of pods, by GET and POST.
func usesPods(t *testing.T, as *rest.Config, namespace, subresource string, allowed bool) {
	t.Helper()
	c, err := client.New(as, client.Options{})
	testkit.Must(t, err)
	for _, verb := range []string{"get", "create"} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: "pods", Subresource: subresource, Name: "probe"}}}
		testkit.Must(t, c.Create(t.Context(), review))
		if review.Status.Allowed != allowed {
			t.Errorf("%s pods/%s in %s: allowed is %v", verb, subresource, namespace, review.Status.Allowed)
		}
	}
}

// signs tries to read and to patch a Secret of the hub's namespace: who may patch
// it is shown it, too.
func signs(t *testing.T, as *rest.Config, secret string, reads, writes bool) {
	t.Helper()
	c, err := client.New(as, client.Options{})
	testkit.Must(t, err)
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "crossway-system", Name: secret}}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); apierrors.IsForbidden(err) == reads {
		t.Errorf("get %s: allowed is %v; got %v", secret, reads, err)
	}
	if err := c.Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte("{}")), client.DryRunAll); apierrors.IsForbidden(err) == writes {
		t.Errorf("patch %s: allowed is %v; got %v", secret, writes, err)
	}
}

// The platform admin changes Gateways, their classes and parameters, but neither
// the members nor the routes.
func TestPlatformAdmin(t *testing.T) {
	apply(t, twoNamespaces+"---\n"+render(t, "hub", ""))
	bind(t, "ClusterRole", "crossway-platform-admin", "", "pat")
	pat := envtestkit.As(t, "pat")
	may(t, pat, true, "mine", `
		create gateway,gatewayclass,gatewayparameters
		delete gateway,gatewayclass,gatewayparameters
		list gateway,httproute,referencegrant,edgepool,membercluster,fleetservice,serviceimport,backendpolicy`)
	may(t, pat, false, "mine", `
		create edgepool,membercluster,httproute,backendpolicy,memberexport,fleetservice,serviceexport,serviceimport,secret
		status gateway,gatewayclass
		list secret,memberexport`)
}

// A developer changes routes, policies and exports in the own namespace, nothing
// in another one and nothing of the fleet's.
func TestDeveloper(t *testing.T) {
	apply(t, twoNamespaces+"---\n"+render(t, "hub", ""))
	bind(t, "ClusterRole", "crossway-developer", "mine", "dev")
	dev := envtestkit.As(t, "dev")
	may(t, dev, true, "mine", `
		create httproute,backendpolicy,serviceexport,referencegrant
		delete httproute,backendpolicy,serviceexport,referencegrant
		list httproute,backendpolicy,serviceexport,serviceimport,gateway`)
	may(t, dev, false, "mine", `
		create gateway,gatewayclass,gatewayparameters,edgepool,membercluster,serviceimport,memberexport,fleetservice,secret
		status httproute,backendpolicy,serviceexport
		list edgepool,membercluster,memberexport,secret`)
	may(t, dev, false, "theirs", "create httproute,backendpolicy,serviceexport,referencegrant\nlist httproute,serviceimport,gateway")
}

// Users with the standard role edit in a namespace are developers there
// (aggregated ClusterRoles).
func TestDeveloperIsPartOfEdit(t *testing.T) {
	for _, c := range []struct{ chart, role string }{{"hub", "crossway-developer"}, {"member-agent", "crossway-exporter"}} {
		role := find(t, render(t, c.chart, ""), "ClusterRole", c.role)
		labels := role.GetLabels()
		for _, standard := range []string{"edit", "admin"} {
			if labels["rbac.authorization.k8s.io/aggregate-to-"+standard] != "true" {
				t.Errorf("%s is not part of %s", c.role, standard)
			}
		}
	}
}

const account = "system:serviceaccount:crossway-system:"

// The hub reads what Build reads, writes statuses and imports, and is no
// administrator.
func TestHubAccount(t *testing.T) {
	installHub(t, "")
	hub := envtestkit.As(t, account+"crossway-hub")
	may(t, hub, true, "mine", `
		list gateway,gatewayclass,httproute,referencegrant,secret,service,namespace,endpointslice,lease
		list membercluster,edgepool,gatewayparameters,backendpolicy,memberexport,fleetservice,serviceimport
		status gateway,gatewayclass,httproute,backendpolicy,membercluster,edgepool,memberexport,serviceimport
		create fleetservice,serviceimport
		delete fleetservice,serviceimport`)
	may(t, hub, true, "crossway-system", `
		create controllerrevision
		list controllerrevision
		delete controllerrevision`)
	may(t, hub, false, "mine", "list controllerrevision")
	may(t, hub, false, "mine", `
		create namespace,secret,endpointslice,lease,memberexport,service,pod,gateway,gatewayclass,httproute,backendpolicy,membercluster,edgepool,clusterrole,clusterbinding
		delete secret,service,gateway,httproute,membercluster,edgepool
		list pod,node,clusterrole`)
	may(t, hub, false, "crossway-system", "create secret,lease\ndelete secret")
}

// The hub may grant an agent its Role, because it has all rights in that Role
// itself. It may not grant other rights.
func TestHubGrantsOnlyWhatItHolds(t *testing.T) {
	hub := installHub(t, "")
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for name, o := range map[string]registration.MemberObjects{"member": registration.Objects("us-9", registration.Limits{}, registration.MemberUser("us-9", "aaaaaaaaaa"))} {
		if err := admin.Create(t.Context(), o.Namespace.DeepCopy()); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		for _, made := range []client.Object{&o.Role, &o.Binding} {
			_ = admin.Delete(t.Context(), made) // what a hub of another test made
			if err := hub.Create(t.Context(), made); err != nil {
				t.Errorf("%s: the hub cannot make %T: %v", name, made, err)
			}
		}
	}
	greedy := registration.Objects("us-10", registration.Limits{}).Role
	if err := admin.Create(t.Context(), new(registration.Objects("us-10", registration.Limits{}).Namespace)); client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	greedy.Rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"delete"}}}
	if err := hub.Create(t.Context(), &greedy); !apierrors.IsForbidden(err) {
		t.Errorf("the hub granted what it does not hold: %v", err)
	}
}

// The edge CA's Secret is the only one, with the serving certificate's, that
// the hub may change, and only in its own namespace.
func TestHubWritesOnlyItsOwnSecrets(t *testing.T) {
	hub := installHub(t, "")
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for _, c := range []struct {
		namespace, name string
		allowed         bool
	}{
		{"crossway-system", registration.EdgeCASecret, true}, {"crossway-system", registration.XDSSecret, true},
		{"crossway-system", "other", false}, {"mine", registration.EdgeCASecret, false},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: c.name}}
		if err := admin.Create(t.Context(), secret); apierrors.IsAlreadyExists(err) { // a hub of another test made it
			err = admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)
			testkit.Must(t, err)
		} else if err != nil {
			t.Fatal(err)
		}
		secret.Data = map[string][]byte{"a": []byte("b")}
		if err := hub.Update(t.Context(), secret); apierrors.IsForbidden(err) == c.allowed {
			t.Errorf("update %s/%s: allowed is %v; got %v", c.namespace, c.name, c.allowed, err)
		}
		_ = admin.Delete(t.Context(), secret)
	}
}

// The agent reads exports, Services, slices, nodes and namespaces. In its own cluster
// it writes the status of exports and what it imports, and it reads no Secret but its own two.
func TestAgentAccount(t *testing.T) {
	apply(t, twoNamespaces+"---\n"+render(t, "member-agent", ""))
	agent := envtestkit.As(t, account+"crossway-member-agent")
	may(t, agent, true, "mine", `
		list serviceexport,serviceimport,service,endpointslice,node,namespace
		delete serviceimport,service,endpointslice
		status serviceexport,serviceimport`)
	may(t, agent, true, "crossway-system", "create lease\nget lease")
	may(t, agent, false, "mine", `
		create serviceexport,lease,secret,namespace
		delete serviceexport,node,namespace
		list secret,pod,httproute,gateway`)
	may(t, agent, false, "crossway-system", "get secret\nlist secret\ncreate secret")
	hub, err := client.New(agent, client.Options{})
	testkit.Must(t, err)
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	for _, c := range []struct {
		name          string
		reads, writes bool
	}{{"crossway-join", true, false}, {"crossway-hub-credential", true, true}, {"crossway-edge-us", false, false}} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "crossway-system", Name: c.name}}
		testkit.Must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), secret)))
		if err := hub.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); apierrors.IsForbidden(err) == c.reads {
			t.Errorf("read Secret %s: %v", c.name, err)
		}
		if err := hub.Patch(t.Context(), secret, client.RawPatch(types.MergePatchType, []byte(`{"data":{"a":"Yg=="}}`))); apierrors.IsForbidden(err) == c.writes {
			t.Errorf("write Secret %s: %v", c.name, err)
		}
		if err := hub.Delete(t.Context(), secret); !apierrors.IsForbidden(err) {
			t.Errorf("delete Secret %s: %v", c.name, err)
		}
		testkit.Must(t, admin.Delete(t.Context(), secret))
	}
}

// No role of a chart holds everything, escalates, binds or impersonates.
func TestNoChartAsksForEverything(t *testing.T) {
	for chart := range usual {
		for _, o := range objects(t, render(t, chart, "")) {
			if o.GetKind() != "ClusterRole" && o.GetKind() != "Role" {
				continue
			}
			var role rbacv1.ClusterRole
			o.SetKind("ClusterRole")
			into(t, o, &role)
			for _, rule := range role.Rules {
				what := fmt.Sprint(rule.Verbs, rule.APIGroups, rule.Resources)
				for _, word := range []string{"*", "escalate", "bind", "impersonate"} {
					if strings.Contains(strings.NewReplacer("rolebindings", "").Replace(what), word) {
						t.Errorf("charts/%s: role %s has %s: %s", chart, o.GetName(), word, what)
					}
				}
			}
		}
	}
}

// The chart and the hub use the same namespace for FleetServices.
func TestFleetNamespace(t *testing.T) {
	manifests := render(t, "hub", "")
	find(t, manifests, "Namespace", v1alpha1.FleetNamespace)
	deployment := find(t, manifests, "Deployment", "crossway-hub")
	if got := deployment.GetNamespace(); got != v1alpha1.SystemNamespace {
		t.Errorf("the hub runs in %s", got)
	}
}
