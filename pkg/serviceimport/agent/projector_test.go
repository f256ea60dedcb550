package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is the hub's own cluster with its caches running and no controller:
// tests call Reconcile.
type fixture struct {
	testkit.T
	client    client.Client
	projector *Projector
	events    *events.FakeRecorder

	applied atomic.Int32 // PATCH requests: the Projector's, since tests create and update
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}, events: events.NewFakeRecorder(10)}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		f.Must(add(scheme))
	}
	config := envtestkit.Config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return testkit.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				f.applied.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	local, err := cluster.New(config, func(o *cluster.Options) { o.Scheme = scheme })
	f.Must(err)
	f.projector, err = NewProjector(local, local)
	f.Must(err)
	f.projector.events = f.events
	f.client = f.projector.local
	f.projector.hub = f.client // waits for what tests write
	testkit.Run(t, local.Start)
	if !local.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("caches did not sync")
	}
	f.namespace(v1alpha1.FleetNamespace)
	return f
}

func (f *fixture) namespace(name string) {
	f.Helper()
	err := f.client.Create(f.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	f.Must(client.IgnoreAlreadyExists(err))
}

func (f *fixture) fleetService(namespace, name string) *v1alpha1.FleetService {
	f.Helper()
	h2c := "kubernetes.io/h2c"
	i := &v1alpha1.FleetService{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: name + "." + namespace},
		Spec: v1alpha1.FleetServiceSpec{
			Service: v1alpha1.ServiceReference{Namespace: namespace, Name: name},
			ServiceProperties: v1alpha1.ServiceProperties{
				Type: v1alpha1.ClusterSetIP, Labels: map[string]string{"team": "shop", "app.kubernetes.io/managed-by": "somebody"},
				Annotations: map[string]string{"note": "x"}, IPFamilies: []corev1.IPFamily{"IPv4"},
			},
			Ports:    []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Port: 80, Protocol: "TCP", AppProtocol: &h2c}}},
			Clusters: []v1alpha1.ExportingCluster{{Name: "us-east", ExportRecord: v1alpha1.ExportRecord{Sequence: 1}}, {Name: "us-west", ExportRecord: v1alpha1.ExportRecord{Sequence: 2}}},
		},
	}
	f.Must(f.client.Create(f.Context(), i))
	return i
}

func (f *fixture) reconcile(namespace, name string) {
	f.Helper()
	f.reconcileImport(namespace, name)
	f.reconcileStatus(namespace, name)
}

func (f *fixture) reconcileImport(namespace, name string) {
	f.Helper()
	_, err := f.projector.Reconcile(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
	f.Must(err)
}

func (f *fixture) reconcileStatus(namespace, name string) {
	f.Helper()
	_, err := f.projector.ReconcileStatus(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
	f.Must(err)
}

// get reads a ServiceImport; nil: there is none.
func (f *fixture) get(namespace, name string) *mcsv1beta1.ServiceImport {
	f.Helper()
	var i mcsv1beta1.ServiceImport
	err := f.client.Get(f.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &i)
	if apierrors.IsNotFound(err) {
		return nil
	}
	f.Must(err)
	return &i
}

// A ServiceImport is made where its namespace exists, follows the FleetService,
// and is deleted with it.
func TestProjection(t *testing.T) {
	f := newFixture(t)
	f.fleetService("p-shop", "web")
	f.reconcile("p-shop", "web")
	if f.get("p-shop", "web") != nil {
		t.Error("a ServiceImport without a namespace")
	}
	if err := f.client.Get(t.Context(), types.NamespacedName{Name: "p-shop"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Error("the namespace was made: ", err)
	}

	f.namespace("p-shop")
	if got := f.projector.requestsOfNamespace(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "p-shop"}}); len(got) != 1 || got[0].Name != "web" {
		t.Errorf("a new namespace brings %v", got)
	}
	f.reconcile("p-shop", "web")
	i := f.get("p-shop", "web")
	if i == nil || len(i.Spec.Ports) != 1 || i.Spec.Ports[0].Port != 80 || *i.Spec.Ports[0].AppProtocol != "kubernetes.io/h2c" || i.Spec.Type != mcsv1beta1.ClusterSetIP {
		t.Fatalf("ServiceImport %+v", i)
	}
	if i.Labels["team"] != "shop" || i.Annotations["note"] != "x" || i.Labels[`app.kubernetes.io/managed-by`] != "crossway.dev" {
		t.Errorf("labels %v, annotations %v", i.Labels, i.Annotations)
	}
	if len(i.Status.Clusters) != 2 || len(i.Status.Conditions) != 1 || i.Status.Conditions[0].Type != "Ready" || i.Status.EndpointSliceObjects != "Absent" {
		t.Errorf("status %+v", i.Status)
	}
	f.reconcile("p-shop", "web")
	if n := f.applied.Load(); n != 2 {
		t.Errorf("%d writes, want one of the ServiceImport and one of its status", n)
	}

	i.Labels["somebody"], i.Annotations["tool"] = "else", "tracks it"
	f.Must(f.client.Update(t.Context(), i))
	fleetService := &v1alpha1.FleetService{}
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: "web.p-shop"}, fleetService))
	fleetService.Spec.Labels, fleetService.Spec.Clusters = nil, fleetService.Spec.Clusters[:1]
	fleetService.Spec.Ports[0].Port = 81
	f.Must(f.client.Update(t.Context(), fleetService))
	f.reconcileStatus("p-shop", "web")
	if n := f.applied.Load(); n != 2 {
		t.Error("the status was written before what it is about")
	}
	f.reconcile("p-shop", "web")
	if i := f.get("p-shop", "web"); i.Labels["team"] != "" || i.Labels["somebody"] != "else" || len(i.Status.Clusters) != 1 {
		t.Errorf("labels %v, clusters %v after the fleet changed", i.Labels, i.Status.Clusters)
	}

	f.Must(f.client.Delete(t.Context(), fleetService))
	f.reconcile("p-shop", "web")
	if f.get("p-shop", "web") != nil {
		t.Error("the ServiceImport of nobody's export stays")
	}
}

// While many ServiceImports are written, their statuses wait.
func TestStatusesComeAfterABurst(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.projector.now = func() time.Time { return now }
	f.namespace("burst")
	for i := range 20 {
		f.fleetService("burst", fmt.Sprint("many", i))
		f.reconcileImport("burst", fmt.Sprint("many", i))
	}
	for _, writes := range []int32{20, 21} { // now, and a second later
		f.reconcileStatus("burst", "many0")
		if n := f.applied.Load(); n != writes {
			t.Errorf("%d writes, want %d", n, writes)
		}
		now = now.Add(time.Second)
	}
}

// A ServiceImport that somebody else made stays as it is; an event says so, once.
func TestOthersImport(t *testing.T) {
	f := newFixture(t)
	f.namespace("q-shop")
	theirs := &mcsv1beta1.ServiceImport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "q-shop", Name: "web"},
		Spec:       mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.Headless, Ports: []mcsv1beta1.ServicePort{}},
	}
	f.Must(f.client.Create(t.Context(), theirs))
	fleetService := f.fleetService("q-shop", "web")
	f.reconcile("q-shop", "web")
	f.reconcile("q-shop", "web")
	if got := f.get("q-shop", "web"); got.ResourceVersion != theirs.ResourceVersion {
		t.Errorf("somebody's ServiceImport became %+v", got)
	}
	if len(f.events.Events) != 1 {
		t.Fatalf("%d events, want 1", len(f.events.Events))
	}
	if e := <-f.events.Events; !strings.Contains(e, `ServiceImport "q-shop/web" was not made by Crossway`) {
		t.Error(e)
	}
	f.Must(f.client.Delete(t.Context(), fleetService))
	f.reconcile("q-shop", "web")
	if f.get("q-shop", "web") == nil {
		t.Error("somebody's ServiceImport was deleted")
	}
}

// withoutFleet reads a hub whose crossway-fleet was deleted, or is being deleted.
type withoutFleet struct {
	client.Reader
	terminating bool
}

func (w withoutFleet) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	namespace, isNamespace := o.(*corev1.Namespace)
	_, isFleetService := o.(*v1alpha1.FleetService)
	switch {
	case isNamespace && key.Name == v1alpha1.FleetNamespace && w.terminating:
		namespace.DeletionTimestamp = new(metav1.Now())
		return nil
	case isNamespace && key.Name == v1alpha1.FleetNamespace, isFleetService:
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	return w.Reader.Get(ctx, key, o, options...)
}

// Without its namespace, a missing FleetService does not mean that nobody
// exports the service: the ServiceImport stays until one knows.
func TestImportOutlivesTheFleetsNamespace(t *testing.T) {
	f := newFixture(t)
	f.namespace("kept")
	f.fleetService("kept", "web")
	f.reconcile("kept", "web")
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "kept", Name: "web"}}
	hub := f.projector.hub
	for _, terminating := range []bool{true, false} {
		f.projector.hub = withoutFleet{hub, terminating}
		result, err := f.projector.Reconcile(t.Context(), key)
		f.Must(err)
		if f.get("kept", "web") == nil || result.RequeueAfter == 0 {
			t.Errorf("namespace terminating %v: ServiceImport %v, again after %s", terminating, f.get("kept", "web"), result.RequeueAfter)
		}
	}
}

// The agent of the hub's own cluster writes the imports of namespaces that it may
// import. The hub writes the others, and those as well when it no longer may.
func TestLocalMember(t *testing.T) {
	f := newFixture(t)
	local := &v1alpha1.MemberCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "local"},
		Spec: v1alpha1.MemberClusterSpec{Accepted: true, Local: true, Region: "us",
			Imports: &v1alpha1.MemberImportRules{Namespaces: []v1alpha1.NamespacePattern{"l-shop"}}},
	}
	f.Must(f.client.Create(t.Context(), local))
	defer func() { f.Must(f.client.Delete(context.Background(), local)) }()
	for _, namespace := range []string{"l-shop", "l-other"} {
		f.namespace(namespace)
		f.fleetService(namespace, "web")
		f.reconcile(namespace, "web")
	}
	if f.get("l-shop", "web") != nil || f.get("l-other", "web") == nil {
		t.Error("the hub writes where the agent does, or does not write where it does not")
	}
	if got := f.projector.requestsOfMember(t.Context(), local); len(got) < 2 {
		t.Errorf("a change of the member brings %v", got)
	}

	// the agent took an import over; the hub neither changes nor deletes it
	i := f.get("l-other", "web")
	local.Spec.Imports.Namespaces = []v1alpha1.NamespacePattern{"l-*"}
	f.Must(f.client.Update(t.Context(), local))
	i.Spec.IPs = []string{"10.0.0.1"}
	f.Must(f.client.Update(t.Context(), i))
	fleetService := &v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: "web.l-other"}}
	f.reconcile("l-other", "web")
	f.Must(f.client.Delete(t.Context(), fleetService))
	f.reconcile("l-other", "web")
	if i := f.get("l-other", "web"); i == nil || len(i.Spec.IPs) != 1 {
		t.Errorf("the agent's import became %+v", i)
	}

	local.Spec.Local = false
	f.Must(f.client.Update(t.Context(), local))
	f.reconcile("l-shop", "web")
	f.reconcile("l-other", "web")
	if f.get("l-shop", "web") == nil || f.get("l-other", "web") != nil {
		t.Error("the hub does not write again")
	}
}
