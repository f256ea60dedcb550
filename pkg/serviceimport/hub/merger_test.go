package hub

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is a hub with its caches running and no controller: tests call
// Reconcile. What they write they write through client, which waits for its
// own writes.
type fixture struct {
	testkit.T
	client client.Client
	merger *Merger
	cache  cache.Cache
	now    time.Time // of the Merger and its Merges: a second later at each reconcile

	applied atomic.Int32 // PATCH requests: the Merger's, since tests create and update
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}}
	scheme := runtime.NewScheme()
	f.Must(clientgoscheme.AddToScheme(scheme))
	f.Must(v1alpha1.AddToScheme(scheme))
	config := envtestkit.Config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return testkit.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				f.applied.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	hub, err := cluster.New(config, func(o *cluster.Options) { o.Scheme = scheme })
	f.Must(err)
	f.Must(Index(t.Context(), hub.GetFieldIndexer()))
	f.merger, err = NewMerger(hub, NewMerges(hub.GetCache()), []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	f.Must(err)
	f.client, f.cache, f.now = f.merger.client, hub.GetCache(), time.Now()
	f.merger.now = func() time.Time { return f.now }
	f.restart()
	testkit.Run(t, hub.Start)
	for _, o := range []client.Object{&v1alpha1.MemberExport{}, &v1alpha1.FleetService{}, &v1alpha1.MemberCluster{}, &discoveryv1.EndpointSlice{}} {
		_, err := hub.GetCache().GetInformer(t.Context(), o)
		f.Must(err)
	}
	if !hub.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("caches did not sync")
	}
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}})
	t.Cleanup(f.deleteMembers)
	return f
}

// restart has the Merger remember nothing.
func (f *fixture) restart() {
	f.merger.merges = NewMerges(f.cache)
	f.merger.merges.now = f.merger.now
}

// deleteMembers leaves the API server without members for the next test.
func (f *fixture) deleteMembers() {
	var all v1alpha1.MemberClusterList
	f.Must(f.client.List(context.Background(), &all))
	for _, m := range all.Items {
		f.Must(f.client.Delete(context.Background(), &m))
	}
}

func (f *fixture) ensure(o client.Object) {
	f.Helper()
	if err := f.client.Create(f.Context(), o); client.IgnoreAlreadyExists(err) != nil {
		f.Fatal(err)
	}
}

// member makes an accepted MemberCluster and its namespace.
func (f *fixture) member(name, cidr string) {
	f.Helper()
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: "us"}}
	if cidr != "" {
		m.Spec.EndpointCIDRs = []string{cidr}
	}
	f.Must(f.client.Create(f.Context(), m))
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MemberNamespace(name), Labels: map[string]string{v1alpha1.LabelMember: name}}})
}

// export makes a cluster's export of shop/<service>, hour of January 1st.
func (f *fixture) export(namespace, service string, hour int, edit func(*v1alpha1.MemberExportSpec)) {
	f.Helper()
	e := &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + ".shop"},
		Spec: v1alpha1.MemberExportSpec{
			Service:           v1alpha1.ServiceReference{Namespace: "shop", Name: service},
			ExportedAt:        metav1.Date(2099, 1, 1, hour, 0, 0, 0, time.UTC), // after any acceptance
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			Ports:             []v1alpha1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}},
		},
	}
	if edit != nil {
		edit(&e.Spec)
	}
	f.Must(f.client.Create(f.Context(), e))
}

func (f *fixture) slice(namespace, service, name string, kind discoveryv1.AddressType, addresses ...string) {
	f.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop",
		}},
		AddressType: kind,
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	f.Must(f.client.Create(f.Context(), s))
	f.Must(f.client.List(f.Context(), &discoveryv1.EndpointSliceList{})) // waits for the write
}

func (f *fixture) reconcile(service string) {
	f.Helper()
	f.Must(f.client.List(f.Context(), &v1alpha1.MemberExportList{})) // a controller comes after its event
	f.Must(f.client.List(f.Context(), &v1alpha1.MemberClusterList{}))
	f.Must(f.client.List(f.Context(), &corev1.NamespaceList{}))
	f.reconcileKey("shop", service)
}

// reconcileKey is what both controllers do after an event.
func (f *fixture) reconcileKey(namespace, service string) {
	f.Helper()
	f.now = f.now.Add(time.Second)
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: service}}
	_, err := f.merger.Reconcile(f.Context(), key)
	f.Must(err)
	_, err = f.merger.ReconcileStatus(f.Context(), key)
	f.Must(err)
}

// fleetService is the FleetService as text: "http 80 from us-east us-west", or "none".
func (f *fixture) fleetService(service string) string {
	f.Helper()
	var i v1alpha1.FleetService
	err := f.client.Get(f.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: service + ".shop"}, &i)
	if client.IgnoreNotFound(err) != nil {
		f.Fatal(err)
	}
	if err != nil {
		return "none"
	}
	var parts []string
	for _, p := range i.Spec.Ports {
		parts = append(parts, fmt.Sprint(p.Name, " ", p.Port))
	}
	parts = append(parts, "from")
	for _, c := range i.Spec.Clusters {
		parts = append(parts, c.Name)
	}
	return strings.Join(parts, " ")
}

func (f *fixture) memberExport(namespace, service string) *v1alpha1.MemberExport {
	f.Helper()
	var e v1alpha1.MemberExport
	f.Must(f.client.Get(f.Context(), types.NamespacedName{Namespace: namespace, Name: service + ".shop"}, &e))
	return &e
}

// wantConditions checks an export's conditions, each "Type=Status Reason".
func (f *fixture) wantConditions(namespace, service string, want ...string) {
	f.Helper()
	if got := testkit.Conditions(f.memberExport(namespace, service).Status.Conditions); !slices.Equal(got, want) {
		f.Errorf("%s/%s has conditions %q, want %q", namespace, service, got, want)
	}
}

func (f *fixture) wantImport(service, want string) {
	f.Helper()
	if got := f.fleetService(service); got != want {
		f.Errorf("import %s is %q, want %q", service, got, want)
	}
}

func (f *fixture) message(namespace, service, kind string) string {
	f.Helper()
	c := meta.FindStatusCondition(f.memberExport(namespace, service).Status.Conditions, kind)
	if c == nil {
		return "no condition " + kind
	}
	return c.Message
}

// Two members' exports become one FleetService, have the condition Conflict while
// they disagree, and the FleetService goes with its last export.
func TestMergeAndConflict(t *testing.T) {
	f := newFixture(t)
	f.member("m-west", "10.1.0.0/16")
	f.member("m-east", "10.2.0.0/16")
	f.member("m-idle", "10.3.0.0/16")
	f.export("member-m-west", "web", 1, nil)
	f.reconcile("web")
	f.wantImport("web", "http 80 from m-west")
	f.wantConditions("member-m-west", "web", "Conflict=False NoConflicts", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	if m := f.message("member-m-west", "web", "Ready"); m != "offered to 2 other clusters" {
		t.Error(m)
	}

	f.export("member-m-east", "web", 2, func(s *v1alpha1.MemberExportSpec) { s.Ports[0].Port = 8080 })
	f.reconcile("web")
	f.wantImport("web", "http 80 from m-east m-west")
	for _, ns := range []string{"member-m-west", "member-m-east"} {
		f.wantConditions(ns, "web", "Conflict=True PortConflict", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	}
	if m := f.message("member-m-east", "web", "Conflict"); !strings.Contains(m, `"http" is TCP 80`) || !strings.Contains(m, "TCP 8080 of the same name here is left out") {
		t.Error(m)
	}

	e := f.memberExport("member-m-east", "web")
	e.Spec.Ports[0].Port = 80
	f.Must(f.client.Update(t.Context(), e))
	f.reconcile("web")
	for _, ns := range []string{"member-m-west", "member-m-east"} {
		f.wantConditions(ns, "web", "Conflict=False NoConflicts", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	}

	f.Must(f.client.Delete(t.Context(), f.memberExport("member-m-west", "web")))
	f.reconcile("web")
	f.wantImport("web", "http 80 from m-east")
	f.Must(f.client.Delete(t.Context(), f.memberExport("member-m-east", "web")))
	f.reconcile("web")
	f.wantImport("web", "none")
}

// A second reconcile writes nothing, and a changed condition keeps the transition
// times of the others.
func TestNothingToWrite(t *testing.T) {
	f := newFixture(t)
	f.member("n-west", "10.1.0.0/16")
	f.export("member-n-west", "quiet", 1, nil)
	f.slice("member-n-west", "quiet", "quiet-1", "IPv4", "10.1.0.1")
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.now = first.Add(-time.Second)
	f.reconcile("quiet")
	if n := f.applied.Load(); n != 2 {
		t.Errorf("%d writes for an import and a status", n)
	}
	f.now = first.Add(time.Hour)
	f.reconcile("quiet")
	if n := f.applied.Load(); n != 2 {
		t.Errorf("%d writes without a change", n-2)
	}
	f.slice("member-n-west", "quiet", "quiet-2", "IPv4", "10.9.0.1")
	f.now = first.Add(time.Hour - time.Second)
	f.reconcile("quiet")
	for _, c := range f.memberExport("member-n-west", "quiet").Status.Conditions {
		want := first
		if c.Type == "EndpointsAdmitted" {
			want = first.Add(time.Hour)
		}
		if !c.LastTransitionTime.Time.Equal(want) {
			t.Errorf("%s changed at %s, want %s", c.Type, c.LastTransitionTime, want)
		}
	}
}

// Endpoints that a member may not announce are named, with the reason.
func TestForeignEndpoints(t *testing.T) {
	f := newFixture(t)
	f.member("e-west", "10.1.0.0/16")
	f.export("member-e-west", "foreign", 1, nil)
	f.slice("member-e-west", "foreign", "foreign-4", "IPv4", "10.1.0.1", "10.2.0.1", "10.96.0.1")
	f.slice("member-e-west", "foreign", "foreign-6", "IPv6", "fd00::1")
	f.reconcile("foreign")
	f.wantConditions("member-e-west", "foreign", "Conflict=False NoConflicts", "EndpointsAdmitted=False EndpointsRefused", "Ready=True Exported")
	message := f.message("member-e-west", "foreign", "EndpointsAdmitted")
	for _, want := range []string{"10.2.0.1 is outside of", "10.96.0.1 is in 10.96.0.0/16, which is the hub's own", "fd00::1 is outside of"} {
		if !strings.Contains(message, want) {
			t.Errorf("%q is missing from: %s", want, message)
		}
	}
	if strings.Contains(message, "10.1.0.1") {
		t.Error(message)
	}
}

// An export counts only in the namespace of an accepted member; elsewhere its
// conditions say that it does not. The cluster leaves the FleetService when its
// acceptance is withdrawn, and comes back with it.
func TestNotAccepted(t *testing.T) {
	f := newFixture(t)
	f.member("a-west", "10.1.0.0/16")
	f.member("a-east", "10.2.0.0/16")
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "elsewhere"}})
	f.export("member-a-west", "stray", 3, nil)
	f.export("member-a-east", "stray", 2, nil)
	f.export("elsewhere", "stray", 1, func(s *v1alpha1.MemberExportSpec) { s.Ports[0].Port = 1 })
	f.reconcile("stray")
	f.wantImport("stray", "http 80 from a-east a-west")
	f.wantConditions("elsewhere", "stray", "Ready=False NotAccepted")

	accept := func(accepted bool) {
		var m v1alpha1.MemberCluster
		f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: "a-west"}, &m))
		m.Spec.Accepted = accepted
		f.Must(f.client.Update(t.Context(), &m))
		f.reconcile("stray")
	}
	accept(false)
	f.wantImport("stray", "http 80 from a-east")
	f.wantConditions("member-a-west", "stray", "Ready=False NotAccepted")
	accept(true)
	f.wantImport("stray", "http 80 from a-east a-west")
}

// An export is Ready only after its FleetService is written.
func TestStatusComesAfterImport(t *testing.T) {
	f := newFixture(t)
	f.member("s-west", "10.1.0.0/16")
	f.export("member-s-west", "later", 1, nil)
	f.Must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.Must(f.client.List(t.Context(), &v1alpha1.MemberClusterList{}))
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "later"}}
	for _, step := range []struct {
		reconcile func(context.Context, reconcile.Request) (reconcile.Result, error)
		writes    int32
	}{{f.merger.ReconcileStatus, 0}, {f.merger.Reconcile, 1}, {f.merger.ReconcileStatus, 2}, {f.merger.Reconcile, 2}, {f.merger.ReconcileStatus, 2}} {
		_, err := step.reconcile(t.Context(), key)
		f.Must(err)
		if n := f.applied.Load(); n != step.writes {
			t.Errorf("%d writes, want %d", n, step.writes)
		}
	}
}

// While many FleetServices are written, the statuses of exports wait.
func TestStatusesComeAfterABurst(t *testing.T) {
	f := newFixture(t)
	f.member("r-west", "10.1.0.0/16")
	for i := range 20 {
		f.export("member-r-west", fmt.Sprint("many", i), 1, nil)
	}
	f.Must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.Must(f.client.List(t.Context(), &v1alpha1.MemberClusterList{}))
	key := func(i int) reconcile.Request {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("many", i)}}
	}
	for i := range 20 {
		_, err := f.merger.Reconcile(t.Context(), key(i))
		f.Must(err)
	}
	for _, writes := range []int32{20, 21} { // now, and a second later
		result, err := f.merger.ReconcileStatus(t.Context(), key(0))
		f.Must(err)
		if n := f.applied.Load(); n != writes || (result.RequeueAfter > 0) != (writes == 20) {
			t.Errorf("%d writes, want %d; again after %s", n, writes, result.RequeueAfter)
		}
		f.now = f.now.Add(time.Second)
	}
}

// A FleetService that somebody changed is written again.
func TestFleetServiceIsRestored(t *testing.T) {
	f := newFixture(t)
	f.member("o-west", "10.1.0.0/16")
	f.export("member-o-west", "ours", 1, nil)
	f.reconcile("ours")
	var i v1alpha1.FleetService
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: "ours.shop"}, &i))
	i.Spec.Ports[0].Port = 9
	f.Must(f.client.Update(t.Context(), &i))
	f.wantImport("ours", "http 9 from o-west")
	f.reconcile("ours")
	f.wantImport("ours", "http 80 from o-west")
}

// The longest names that a Service and a MemberCluster may have.
func TestLongNames(t *testing.T) {
	f := newFixture(t)
	cluster := "l" + strings.Repeat("o", 48) + "g"
	f.member(cluster, "10.1.0.0/16")
	long := "s" + strings.Repeat("v", 62)
	e := &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + cluster, Name: long + "." + long},
		Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: long, Name: long}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
		},
	}
	f.Must(f.client.Create(t.Context(), e))
	f.Must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.reconcileKey(long, long)
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: long + "." + long}, &v1alpha1.FleetService{}))
}

// withoutFleet is a hub whose crossway-fleet is being deleted, or not there.
type withoutFleet struct {
	client.Client
	terminating bool
}

func (w withoutFleet) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	namespace, ok := o.(*corev1.Namespace)
	switch {
	case ok && w.terminating:
		namespace.DeletionTimestamp = new(metav1.Now())
		return nil
	case ok:
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	return w.Client.Get(ctx, key, o, options...)
}

// A namespace that is being deleted takes no object. FleetServices wait for the
// new one without an error, which brings them all back.
func TestFleetServicesWaitForTheirNamespace(t *testing.T) {
	f := newFixture(t)
	f.member("w-west", "10.1.0.0/16")
	f.export("member-w-west", "waits", 1, nil)
	hub := f.merger.client
	for _, terminating := range []bool{true, false} {
		f.merger.client = withoutFleet{hub, terminating}
		f.reconcile("waits")
	}
	f.wantNoImport("waits")
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}}
	deleted := namespace.DeepCopy()
	deleted.DeletionTimestamp = new(metav1.Now())
	if fleetNamespace.Update(event.UpdateEvent{ObjectOld: namespace, ObjectNew: namespace}) || !fleetNamespace.Update(event.UpdateEvent{ObjectOld: namespace, ObjectNew: deleted}) ||
		!fleetNamespace.Create(event.CreateEvent{Object: namespace}) || fleetNamespace.Create(event.CreateEvent{Object: &corev1.Namespace{}}) {
		t.Error("only the beginning of crossway-fleet and of its deletion count")
	}
	if got := f.merger.fleetNamespaceChanged(t.Context(), deleted); len(got) != 0 {
		t.Errorf("its deletion brings %v", got)
	}
	f.merger.client = hub
	if got := f.merger.fleetNamespaceChanged(t.Context(), namespace); !slices.Contains(got, requestFor(fleet.ServiceName{Namespace: "shop", Name: "waits"})) {
		t.Errorf("the new namespace brings %v", got)
	}
	f.reconcile("waits")
	f.wantImport("waits", "http 80 from w-west")
}

func (f *fixture) wantNoImport(service string) {
	f.Helper()
	key := types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: service + ".shop"}
	if err := f.client.Get(f.Context(), key, &v1alpha1.FleetService{}); !apierrors.IsNotFound(err) {
		f.Errorf("FleetService %s: %v", key, err)
	}
}
