package hub

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/registration"
)

// profiles is a fixture whose API server serves ClusterProfiles.
type profiles struct {
	*fixture
	*Profiles
	writes *int // of Profiles: requests that change something
}

// counting is a client that counts them.
type counting struct {
	client.Client
	writes *int
}

func (c counting) Patch(ctx context.Context, o client.Object, patch client.Patch, options ...client.PatchOption) error {
	*c.writes++
	return c.Client.Patch(ctx, o, patch, options...)
}

func (c counting) Status() client.SubResourceWriter {
	*c.writes++
	return c.Client.Status()
}

func newProfiles(t *testing.T) profiles {
	t.Helper()
	_, err := envtest.InstallCRDs(envtestkit.Config(t), envtest.CRDInstallOptions{Paths: []string{"../testdata/crds"}, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond})
	f := newFixture(t)
	f.Must(err)
	p, err := NewProfiles(f.hub, "crossway")
	f.Must(err)
	p.now = func() time.Time { return f.clock }
	writes := 0
	p.client = counting{p.client, &writes}
	return profiles{f, p, &writes}
}

// settle reconciles a member and then its profile, as the two controllers do.
func (p profiles) settle(name string) {
	p.Helper()
	p.reconcile(name)
	p.awaitCaches()
	p.Must(p.fixture.client.List(p.Context(), &coordinationv1.LeaseList{}))
	_, err := p.Reconcile(p.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	p.Must(err)
}

func (p profiles) profile(name string) *unstructured.Unstructured {
	p.Helper()
	o, err := apply.Found(p.Context(), p.fixture.client, types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: name}, registration.OptionalObject(registration.ClusterProfileKind))
	p.Must(err)
	return o
}

// A member has a ClusterProfile from its acceptance on, which says what KEP-4322 has a
// field for. Twenty minutes of renewals write nothing of it; silence does, once.
func TestClusterProfile(t *testing.T) {
	p := newProfiles(t)
	p.member("p-west", false, "10.1.0.0/16")
	p.settle("p-west")
	if p.profile("p-west") != nil {
		t.Fatal("a cluster that is not accepted has a profile")
	}
	p.accept("p-west", true)
	p.settle("p-west")
	p.renew("p-west")
	p.annotate("p-west", v1alpha1.AnnotationKubernetesVersion, "v1.37.2")
	p.settle("p-west")
	text, err := yaml.Marshal(map[string]any{"labels": p.profile("p-west").GetLabels(), "spec": p.profile("p-west").Object["spec"], "status": p.profile("p-west").Object["status"]})
	p.Must(err)
	for _, want := range []string{
		"x-k8s.io/cluster-manager: crossway.dev", "clusterManager:\n    name: crossway.dev\n  displayName: p-west", "kubernetes: v1.37.2",
		"name: cluster.clusterset.k8s.io\n    value: p-west", "name: clusterset.k8s.io\n    value: crossway", "name: region.crossway.dev\n    value: us",
		"status: \"True\"\n    type: ControlPlaneHealthy", "status: \"True\"\n    type: Joined",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	*p.writes = 0
	for range 120 {
		p.clock = p.clock.Add(v1alpha1.AgentLeaseRenewInterval)
		p.renew("p-west")
		p.settle("p-west")
	}
	if *p.writes != 0 {
		t.Errorf("120 renewals caused %d writes", *p.writes)
	}
	p.clock = p.clock.Add(time.Minute)
	p.settle("p-west")
	if *p.writes != 1 {
		t.Errorf("its silence caused %d writes", *p.writes)
	}
	if text := fmt.Sprint(p.profile("p-west").Object["status"]); !strings.Contains(text, "status:Unknown type:ControlPlaneHealthy") {
		t.Errorf("it is silent: %s", text)
	}

	// What somebody changes or deletes comes back.
	changed := p.profile("p-west")
	changed.Object["spec"].(map[string]any)["displayName"] = "other"
	p.Must(p.fixture.client.Update(t.Context(), changed))
	p.settle("p-west")
	if name, _, _ := unstructured.NestedString(p.profile("p-west").Object, "spec", "displayName"); name != "p-west" {
		t.Errorf("it is called %q", name)
	}
	p.Must(p.fixture.client.Delete(t.Context(), p.profile("p-west")))
	p.settle("p-west")

	p.accept("p-west", false)
	p.settle("p-west")
	if p.profile("p-west") != nil {
		t.Error("it is not accepted any more, and has a profile")
	}
}

// A profile that another cluster manager wrote is never touched, and one of a deleted
// member goes with it.
func TestOthersProfilesStay(t *testing.T) {
	p := newProfiles(t)
	p.member("q-west", true, "10.1.0.0/16")
	p.settle("q-west")
	if p.profile("q-west") == nil {
		t.Fatal("no profile")
	}
	p.Must(p.fixture.client.Delete(t.Context(), p.get("q-west")))
	p.settle("q-west")
	if p.profile("q-west") != nil {
		t.Error("the profile outlives its member")
	}
	theirs := registration.ClusterProfile(registration.ProfileFacts{Member: &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "q-east"}}})
	theirs.SetLabels(map[string]string{"x-k8s.io/cluster-manager": "karmada"})
	theirs.Object["spec"] = map[string]any{"clusterManager": map[string]any{"name": "karmada"}}
	p.Must(client.IgnoreAlreadyExists(p.fixture.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}})))
	p.Must(p.fixture.client.Create(t.Context(), theirs))
	before := p.profile("q-east").GetResourceVersion()
	p.member("q-east", true, "10.2.0.0/16")
	p.settle("q-east")
	p.accept("q-east", false)
	p.settle("q-east")
	if have := p.profile("q-east"); have == nil || have.GetResourceVersion() != before {
		t.Errorf("it was written: %v", have)
	}
}

// annotate sets an annotation of a member's Lease.
func (f *fixture) annotate(member, key, value string) {
	f.Helper()
	lease := &coordinationv1.Lease{}
	f.Must(f.client.Get(f.Context(), types.NamespacedName{Namespace: v1alpha1.MemberNamespace(member), Name: v1alpha1.AgentLease}, lease))
	metav1.SetMetaDataAnnotation(&lease.ObjectMeta, key, value)
	f.Must(f.client.Update(f.Context(), lease))
}
