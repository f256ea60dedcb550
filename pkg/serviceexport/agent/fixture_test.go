package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceexport"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is one member and its agent. One API server plays the member and the
// hub; the agent is the member's user there, with the member's Role.
type fixture struct {
	t        *testing.T
	name     fleet.ClusterName
	scheme   *runtime.Scheme
	admin    client.Client // of both sides, without a cache
	member   cluster.Cluster
	exporter *Exporter
	hub      *Hub
	writes   *writes // to the hub
	atSource *writes // to the member, tests' own ones too
	clock    time.Time
}

func newFixture(t *testing.T, name fleet.ClusterName) *fixture {
	t.Helper()
	f := &fixture{t: t, name: name, scheme: runtime.NewScheme(), writes: &writes{}, atSource: &writes{}, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		f.must(add(f.scheme))
	}
	var err error
	f.admin, err = client.New(envtestkit.Config(t), client.Options{Scheme: f.scheme})
	f.must(err)
	f.accept()
	f.start()
	return f
}

// accept makes what the hub makes for an accepted member.
func (f *fixture) accept() {
	f.t.Helper()
	o := registration.Objects(f.name)
	for _, object := range []client.Object{&o.Namespace, &o.Role, &o.Binding} {
		f.must(f.admin.Create(f.t.Context(), object))
	}
}

// start is the agent's start, and its restart: new caches, nothing remembered.
// No controller runs: tests call Reconcile.
func (f *fixture) start() {
	f.t.Helper()
	wait := true
	var err error
	memberConfig := envtestkit.Config(f.t)
	memberConfig.Wrap(f.atSource.count)
	f.member, err = cluster.New(memberConfig, func(o *cluster.Options) {
		o.Scheme = f.scheme
		o.Client.Cache = &client.CacheOptions{EnableReadYourWritesConsistency: &wait}
	})
	f.must(err)
	f.must(IndexMember(f.t.Context(), f.member.GetFieldIndexer()))
	config := envtestkit.As(f.t, registration.User(f.name), v1alpha1.MembersGroup)
	config.Wrap(f.writes.count)
	f.hub, err = NewHub(config, f.name, f.scheme)
	f.must(err)
	ctx, cancel := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	for _, c := range []interface{ Start(context.Context) error }{f.member, f.hub} {
		running.Go(func() {
			if err := c.Start(ctx); err != nil {
				f.t.Error(err)
			}
		})
	}
	f.t.Cleanup(func() { cancel(); running.Wait() })
	f.exporter = NewExporter(f.name, f.member, f.hub)
	f.exporter.now = func() time.Time { return f.clock }
	for _, o := range []client.Object{&v1alpha1.MemberExport{}, &discoveryv1.EndpointSlice{}} {
		_, err := f.hub.GetCache().GetInformer(ctx, o)
		f.must(err)
	}
	if !f.hub.GetCache().WaitForCacheSync(ctx) || !f.member.GetCache().WaitForCacheSync(ctx) {
		f.t.Fatal("caches did not sync")
	}
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// namespace makes a namespace of the member.
func (f *fixture) namespace(name string) string {
	f.t.Helper()
	f.must(f.admin.Create(f.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	return name
}

// service makes a Service with an export and one slice of two endpoints.
func (f *fixture) service(namespace, name string) {
	f.t.Helper()
	f.must(f.member.GetClient().Create(f.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}))
	f.slice(namespace, name, name+"-1", "10.1.0.1", "10.1.0.2")
	f.export(namespace, name)
}

func (f *fixture) export(namespace, name string) {
	f.t.Helper()
	f.must(f.member.GetClient().Create(f.t.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}))
}

func (f *fixture) slice(namespace, service, name string, addresses ...string) {
	f.t.Helper()
	f.must(f.member.GetClient().Create(f.t.Context(), sliceOf(namespace, service, name, addresses...)))
}

func sliceOf(namespace, service, name string, addresses ...string) *discoveryv1.EndpointSlice {
	http, port, ready := "http", int32(8080), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

// hubName is what a slice of the member is called on the hub.
func hubName(namespace, service, name string) string {
	return serviceexport.SliceName(sliceOf(namespace, service, name))
}

// reconcile reconciles a service's export and these slices of it, and gives
// the writes that the hub got.
func (f *fixture) reconcile(namespace, name string, sliceNames ...string) []string {
	f.t.Helper()
	f.writes.reset()
	f.must(f.reconcileExport(namespace, name))
	for _, s := range sliceNames {
		f.must(f.reconcileSlice(hubName(namespace, name, s)))
	}
	return f.writes.list()
}

func (f *fixture) reconcileExport(namespace, name string) error {
	_, err := f.exporter.ReconcileExport(f.t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
	return err
}

func (f *fixture) reconcileSlice(name string) error {
	_, err := f.exporter.ReconcileSlice(f.t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	return err
}

// wantWrites checks the hub's writes: "PATCH memberexports" and such.
func (f *fixture) wantWrites(when string, got []string, want ...string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("%s the hub got %v, want %v", when, got, want)
	}
}

// wantConditions checks a ServiceExport's conditions, each "Type=Status Reason".
func (f *fixture) wantConditions(namespace, name string, want ...string) {
	f.t.Helper()
	var export mcsv1beta1.ServiceExport
	f.must(f.admin.Get(f.t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &export))
	var got []string
	for _, c := range export.Status.Conditions {
		got = append(got, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		f.t.Errorf("ServiceExport %s/%s says %q, want %q", namespace, name, got, want)
	}
}

func (f *fixture) memberExport(namespace, name string) *v1alpha1.MemberExport {
	f.t.Helper()
	return f.onHub(name+"."+namespace, &v1alpha1.MemberExport{}).(*v1alpha1.MemberExport)
}

// onHub reads an object of the member's namespace on the hub; it must exist.
func (f *fixture) onHub(name string, into client.Object) client.Object {
	f.t.Helper()
	f.must(f.admin.Get(f.t.Context(), types.NamespacedName{Namespace: registration.Namespace(f.name), Name: name}, into))
	return into
}

// goneFromHub checks that an object of the member's namespace does not exist.
func (f *fixture) goneFromHub(name string, into client.Object) {
	f.t.Helper()
	err := f.admin.Get(f.t.Context(), types.NamespacedName{Namespace: registration.Namespace(f.name), Name: name}, into)
	if client.IgnoreNotFound(err) != nil || err == nil {
		f.t.Errorf("%T %s is on the hub (%v)", into, name, err)
	}
}

// tell writes the hub's verdict into an export's status, as the hub does.
func (f *fixture) tell(namespace, name string, conditions ...metav1.Condition) {
	f.t.Helper()
	e := f.memberExport(namespace, name)
	before := e.ResourceVersion
	for _, c := range conditions {
		meta.SetStatusCondition(&e.Status.Conditions, c)
	}
	f.must(f.admin.Status().Update(f.t.Context(), e))
	f.sees(e, before)
}

// sees waits until the agent's cache of the hub has moved past a version: what
// an event would do for a controller.
func (f *fixture) sees(o client.Object, before string) {
	f.t.Helper()
	key := client.ObjectKeyFromObject(o)
	for f.t.Context().Err() == nil {
		have := o.DeepCopyObject().(client.Object)
		f.must(f.hub.GetCache().Get(f.t.Context(), key, have))
		if have.GetResourceVersion() != before {
			return
		}
	}
}

// writes counts the requests of a client that write.
type writes struct {
	mu   sync.Mutex
	seen []string // guarded by mu
	cut  bool     // guarded by mu: the hub cannot be reached
}

func (w *writes) count(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if w.isCut() {
			return nil, errors.New("no route to the hub")
		}
		if r.Method != http.MethodGet {
			parts := strings.Split(r.URL.Path, "/")
			i := slices.Index(parts, "namespaces")
			w.mu.Lock()
			w.seen = append(w.seen, r.Method+" "+parts[i+2])
			w.mu.Unlock()
		}
		return next.RoundTrip(r)
	})
}

func (w *writes) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *writes) isCut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut
}

func (w *writes) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = nil
}

func (w *writes) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
