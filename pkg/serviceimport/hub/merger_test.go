package hub

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is a hub with its caches running and no controller: tests call
// Reconcile. What they write they write through client, which waits for its
// own writes.
type fixture struct {
	t      *testing.T
	client client.Client
	merger *Merger

	applied atomic.Int32 // requests of the Merger; tests create and update
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t}
	scheme := runtime.NewScheme()
	f.must(clientgoscheme.AddToScheme(scheme))
	f.must(v1alpha1.AddToScheme(scheme))
	config := envtestkit.Config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPatch {
				f.applied.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	hub, err := cluster.New(config, func(o *cluster.Options) { o.Scheme = scheme })
	f.must(err)
	f.must(Index(t.Context(), hub.GetFieldIndexer()))
	f.merger, err = NewMerger(hub, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	f.must(err)
	f.client = f.merger.client
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := hub.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, o := range []client.Object{&v1alpha1.MemberExport{}, &v1alpha1.FleetService{}, &v1alpha1.MemberCluster{}, &discoveryv1.EndpointSlice{}} {
		_, err := hub.GetCache().GetInformer(ctx, o)
		f.must(err)
	}
	if !hub.GetCache().WaitForCacheSync(ctx) {
		t.Fatal("caches did not sync")
	}
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}})
	t.Cleanup(f.dismissAll)
	return f
}

// dismissAll leaves the API server without members for the next test.
func (f *fixture) dismissAll() {
	var all v1alpha1.MemberClusterList
	f.must(f.client.List(context.Background(), &all))
	for _, m := range all.Items {
		f.must(f.client.Delete(context.Background(), &m))
	}
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) ensure(o client.Object) {
	f.t.Helper()
	if err := f.client.Create(f.t.Context(), o); client.IgnoreAlreadyExists(err) != nil {
		f.t.Fatal(err)
	}
}

// member makes an accepted MemberCluster and its namespace.
func (f *fixture) member(name, cidr string) {
	f.t.Helper()
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us"}}
	if cidr != "" {
		m.Spec.EndpointCIDRs = []string{cidr}
	}
	f.must(f.client.Create(f.t.Context(), m))
	f.ensure(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: registration.Namespace(fleet.ClusterName(name))}})
}

// export makes a cluster's export of shop/<service>, hour of January 1st.
func (f *fixture) export(namespace, service string, hour int, edit func(*v1alpha1.MemberExportSpec)) {
	f.t.Helper()
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
	f.must(f.client.Create(f.t.Context(), e))
}

func (f *fixture) slice(namespace, service, name string, kind discoveryv1.AddressType, addresses ...string) {
	f.t.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{
			v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop",
		}},
		AddressType: kind,
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	f.must(f.client.Create(f.t.Context(), s))
	f.must(f.client.List(f.t.Context(), &discoveryv1.EndpointSliceList{})) // waits for the write
}

func (f *fixture) reconcile(service string) {
	f.t.Helper()
	f.must(f.client.List(f.t.Context(), &v1alpha1.MemberExportList{})) // a controller comes after its event
	f.must(f.client.List(f.t.Context(), &v1alpha1.MemberClusterList{}))
	f.reconcileKey("shop", service)
}

// reconcileKey is what both controllers do after an event.
func (f *fixture) reconcileKey(namespace, service string) {
	f.t.Helper()
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: service}}
	_, err := f.merger.Reconcile(f.t.Context(), key)
	f.must(err)
	_, err = f.merger.ReconcileStatus(f.t.Context(), key)
	f.must(err)
}

// fleetService is the FleetService as text: "http 80 from us-east us-west", or "none".
func (f *fixture) fleetService(service string) string {
	f.t.Helper()
	var i v1alpha1.FleetService
	err := f.client.Get(f.t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: service + ".shop"}, &i)
	if client.IgnoreNotFound(err) != nil {
		f.t.Fatal(err)
	}
	if err != nil {
		return "none"
	}
	var words []string
	for _, p := range i.Spec.Ports {
		words = append(words, fmt.Sprint(p.Name, " ", p.Port))
	}
	words = append(words, "from")
	for _, c := range i.Spec.Clusters {
		words = append(words, c.Name)
	}
	return strings.Join(words, " ")
}

func (f *fixture) memberExport(namespace, service string) *v1alpha1.MemberExport {
	f.t.Helper()
	var e v1alpha1.MemberExport
	f.must(f.client.Get(f.t.Context(), types.NamespacedName{Namespace: namespace, Name: service + ".shop"}, &e))
	return &e
}

// wantConditions checks an export's conditions, each "Type=Status Reason".
func (f *fixture) wantConditions(namespace, service string, want ...string) {
	f.t.Helper()
	var got []string
	for _, c := range f.memberExport(namespace, service).Status.Conditions {
		got = append(got, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		f.t.Errorf("%s/%s says %q, want %q", namespace, service, got, want)
	}
}

func (f *fixture) wantImport(service, want string) {
	f.t.Helper()
	if got := f.fleetService(service); got != want {
		f.t.Errorf("import %s is %q, want %q", service, got, want)
	}
}

func (f *fixture) message(namespace, service, kind string) string {
	f.t.Helper()
	c := meta.FindStatusCondition(f.memberExport(namespace, service).Status.Conditions, kind)
	if c == nil {
		return "no condition " + kind
	}
	return c.Message
}

// Two members' exports become one import, they are told of a conflict while it
// lasts, and the import goes with its last export.
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
	if m := f.message("member-m-east", "web", "Conflict"); !strings.Contains(m, "TCP 80 in m-west") || !strings.Contains(m, "TCP 8080 here") {
		t.Error(m)
	}

	e := f.memberExport("member-m-east", "web")
	e.Spec.Ports[0].Port = 80
	f.must(f.client.Update(t.Context(), e))
	f.reconcile("web")
	for _, ns := range []string{"member-m-west", "member-m-east"} {
		f.wantConditions(ns, "web", "Conflict=False NoConflicts", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	}

	f.must(f.client.Delete(t.Context(), f.memberExport("member-m-west", "web")))
	f.reconcile("web")
	f.wantImport("web", "http 80 from m-east")
	f.must(f.client.Delete(t.Context(), f.memberExport("member-m-east", "web")))
	f.reconcile("web")
	f.wantImport("web", "none")
}

// A second look writes nothing, and a changed verdict keeps the transition
// times of what did not change.
func TestNothingToWrite(t *testing.T) {
	f := newFixture(t)
	f.member("n-west", "10.1.0.0/16")
	f.export("member-n-west", "quiet", 1, nil)
	f.slice("member-n-west", "quiet", "quiet-1", "IPv4", "10.1.0.1")
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.merger.now = func() time.Time { return first }
	f.reconcile("quiet")
	if n := f.applied.Load(); n != 2 {
		t.Errorf("%d writes for an import and a status", n)
	}
	f.merger.now = func() time.Time { return first.Add(time.Hour) }
	f.reconcile("quiet")
	if n := f.applied.Load(); n != 2 {
		t.Errorf("%d writes without a change", n-2)
	}
	f.slice("member-n-west", "quiet", "quiet-2", "IPv4", "10.9.0.1")
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

// An export counts only in the namespace of an accepted member, and is told
// where it does not. Taking the acceptance back takes the cluster from the
// import; giving it again brings it back.
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
		f.must(f.client.Get(t.Context(), types.NamespacedName{Name: "a-west"}, &m))
		m.Spec.Accepted = accepted
		f.must(f.client.Update(t.Context(), &m))
		f.reconcile("stray")
	}
	accept(false)
	f.wantImport("stray", "http 80 from a-east")
	f.wantConditions("member-a-west", "stray", "Ready=False NotAccepted")
	accept(true)
	f.wantImport("stray", "http 80 from a-east a-west")
}

// An export is told that it is offered when it is: after its import is published.
func TestStatusComesAfterImport(t *testing.T) {
	f := newFixture(t)
	f.member("s-west", "10.1.0.0/16")
	f.export("member-s-west", "later", 1, nil)
	f.must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.must(f.client.List(t.Context(), &v1alpha1.MemberClusterList{}))
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "later"}}
	for _, step := range []struct {
		reconcile func(context.Context, reconcile.Request) (reconcile.Result, error)
		writes    int32
	}{{f.merger.ReconcileStatus, 0}, {f.merger.Reconcile, 1}, {f.merger.ReconcileStatus, 2}, {f.merger.Reconcile, 2}, {f.merger.ReconcileStatus, 2}} {
		_, err := step.reconcile(t.Context(), key)
		f.must(err)
		if n := f.applied.Load(); n != step.writes {
			t.Errorf("%d writes, want %d", n, step.writes)
		}
	}
}

// While many imports are published, exports are told later.
func TestStatusesComeAfterARush(t *testing.T) {
	f := newFixture(t)
	now := time.Now()
	f.merger.now = func() time.Time { return now }
	f.member("r-west", "10.1.0.0/16")
	for i := range 20 {
		f.export("member-r-west", fmt.Sprint("many", i), 1, nil)
	}
	f.must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.must(f.client.List(t.Context(), &v1alpha1.MemberClusterList{}))
	key := func(i int) reconcile.Request {
		return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("many", i)}}
	}
	for i := range 20 {
		_, err := f.merger.Reconcile(t.Context(), key(i))
		f.must(err)
	}
	for _, writes := range []int32{20, 21} { // now, and a second later
		result, err := f.merger.ReconcileStatus(t.Context(), key(0))
		f.must(err)
		if n := f.applied.Load(); n != writes || (result.RequeueAfter > 0) != (writes == 20) {
			t.Errorf("%d writes, want %d; again after %s", n, writes, result.RequeueAfter)
		}
		now = now.Add(time.Second)
	}
}

// Somebody changes an import: the exports' word holds.
func TestImportIsOurs(t *testing.T) {
	f := newFixture(t)
	f.member("o-west", "10.1.0.0/16")
	f.export("member-o-west", "ours", 1, nil)
	f.reconcile("ours")
	var i v1alpha1.FleetService
	f.must(f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: "ours.shop"}, &i))
	i.Spec.Ports[0].Port = 9
	f.must(f.client.Update(t.Context(), &i))
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
	f.must(f.client.Create(t.Context(), e))
	f.must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
	f.reconcileKey(long, long)
	f.must(f.client.Get(t.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: long + "." + long}, &v1alpha1.FleetService{}))
}
