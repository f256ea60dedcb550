package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// A member's credential gives access to its own namespace and nothing else.
func TestCredential(t *testing.T) {
	f := newFixture(t, "mine")
	other := registration.Objects("theirs", registration.Limits{}, registration.MemberUser("theirs", testkit.CredentialID))
	f.Must(f.admin.Create(t.Context(), &other.Namespace))
	f.Must(f.admin.Create(t.Context(), &other.Role))
	f.Must(f.admin.Create(t.Context(), &other.Binding))
	agent, err := client.New(envtestkit.As(t, registration.MemberUser("mine", testkit.CredentialID), v1alpha1.MembersGroup), client.Options{Scheme: f.scheme})
	f.Must(err)
	export := func(namespace string) *v1alpha1.MemberExport {
		return &v1alpha1.MemberExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web.shop"},
			Spec: v1alpha1.MemberExportSpec{
				Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}, ExportedAt: metav1.Now(),
				ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			},
		}
	}
	slice := func(namespace string) *discoveryv1.EndpointSlice {
		return sliceOf(namespace, "web", "web-1", "10.1.0.1")
	}
	lease := func(namespace, name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	push := func(o client.Object) error { return apply.Object(t.Context(), agent, v1alpha1.AgentFieldManager, o) }
	for what, err := range map[string]error{
		"export": push(export("member-mine")), "slice": push(slice("member-mine")), "lease": push(lease("member-mine", v1alpha1.AgentLease)),
	} {
		if err != nil {
			t.Errorf("own %s: %v", what, err)
		}
	}
	withStatus := export("member-mine")
	withStatus.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Exported", LastTransitionTime: metav1.Now()}}
	for what, err := range map[string]error{
		"export into another's namespace":  push(export("member-theirs")),
		"slice into another's namespace":   push(slice("member-theirs")),
		"lease of another":                 push(lease("member-theirs", v1alpha1.AgentLease)),
		"slice outside of the fleet":       push(slice("default")),
		"status of its own export":         apply.Status(t.Context(), agent, v1alpha1.AgentFieldManager, withStatus),
		"deleting another's export":        agent.Delete(t.Context(), export("member-theirs")),
		"reading another's exports":        agent.List(t.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-theirs")),
		"reading all exports":              agent.List(t.Context(), &v1alpha1.MemberExportList{}),
		"reading Secrets of its namespace": agent.List(t.Context(), &corev1.SecretList{}, client.InNamespace("member-mine")),
		"reading MemberClusters":           agent.List(t.Context(), &v1alpha1.MemberClusterList{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
}

// An agent without access says so on the ServiceExport, and tries again.
func TestForbidden(t *testing.T) {
	f := newFixture(t, "forbidden")
	ns := f.namespace("forbidden-shop")
	f.service(ns, "web")
	o := registration.Objects("forbidden", registration.Limits{}, registration.MemberUser("forbidden", testkit.CredentialID))
	f.Must(f.admin.Delete(t.Context(), &o.Binding))
	var err error
	for range 200 { // the API server's own view of its bindings follows within milliseconds
		if err = f.reconcileExport(ns, "web"); err != nil {
			break
		}
		f.Must(f.admin.DeleteAllOf(t.Context(), &v1alpha1.MemberExport{}, client.InNamespace("member-forbidden")))
	}
	if !apierrors.IsForbidden(err) {
		t.Fatalf("%v, want it forbidden and tried again", err)
	}
	f.wantConditions(ns, "web", "Ready=False Failed", "Valid=True Valid")
}

// A quota on the hub is a limit, and no lack of access. The export is tried again.
func TestQuota(t *testing.T) {
	full := apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("memberexports").GroupResource(), "web.shop",
		errors.New("exceeded quota: crossway-member, requested: count/memberexports.crossway.dev=1, used: count/memberexports.crossway.dev=500, limited: count/memberexports.crossway.dev=500"))
	e := &Exporter{cluster: "us-west"}
	got, err := e.pushFailed(fleet.ServiceName{Namespace: "shop", Name: "web"}, nil, fmt.Errorf("apply MemberExport: %w", full))
	if err == nil || len(got.conditions) != 1 || !strings.Contains(got.conditions[0].Message, "as many exports as it may") {
		t.Errorf("%+v, %v", got, err)
	}
}

// A hub that has not counted yet is no lack of access: what it said last stays.
func TestUncountedQuota(t *testing.T) {
	uncounted := apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("memberexports").GroupResource(), "web.shop",
		errors.New("status unknown for quota: crossway-member, resources: count/memberexports.crossway.dev"))
	e := &Exporter{cluster: "us-west"}
	got, err := e.pushFailed(fleet.ServiceName{Namespace: "shop", Name: "web"}, nil, fmt.Errorf("apply MemberExport: %w", uncounted))
	if err == nil || len(got.conditions) != 1 || got.conditions[0].Reason != "Pending" {
		t.Errorf("%+v, %v", got, err)
	}
}

// What somebody with a stolen credential left in the member's namespace goes when the
// agent sees it, whatever its labels: endpoints there count.
func TestStraySlicesAreDeleted(t *testing.T) {
	f := newFixture(t, "stray")
	ns := f.namespace("stray-shop")
	f.service(ns, "web")
	f.reconcile(ns, "web", "web-1")
	stray := sliceOf(v1alpha1.MemberNamespace(f.name), "web", "web-stray", "10.1.0.66")
	stray.Labels = map[string]string{v1alpha1.LabelServiceNamespace: ns, v1alpha1.LabelServiceName: "web"}
	f.Must(f.admin.Create(t.Context(), stray))
	f.Eventually("the slice is deleted", func() bool {
		f.Must(f.reconcileSlice("web-stray"))
		return apierrors.IsNotFound(f.admin.Get(t.Context(), client.ObjectKeyFromObject(stray), stray))
	})
	f.onHub(hubName(ns, "web", "web-1"), &discoveryv1.EndpointSlice{})
}
