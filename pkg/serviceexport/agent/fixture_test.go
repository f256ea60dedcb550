package agent

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceexport"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is one member and its agent. One API server plays the member and the
// hub; the agent is the member's user there, with the member's Role.
type fixture struct {
	testkit.T
	name     fleet.ClusterName
	scheme   *runtime.Scheme
	admin    client.Client // of both sides, without a cache
	member   cluster.Cluster
	exporter *Exporter
	hub      *Hub
	writes   *writes // to the hub
	inMember *writes // to the member, those of tests included
	clock    time.Time
}

func newFixture(t *testing.T, name fleet.ClusterName) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}, name: name, scheme: runtime.NewScheme(), writes: &writes{}, inMember: &writes{}, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		f.Must(add(f.scheme))
	}
	var err error
	f.admin, err = client.New(envtestkit.Config(t), client.Options{Scheme: f.scheme})
	f.Must(err)
	f.accept()
	f.start()
	return f
}

// accept creates the objects that the hub creates for an accepted member.
func (f *fixture) accept() {
	f.Helper()
	o := registration.Objects(f.name, registration.Limits{}, registration.MemberUser(f.name, testkit.CredentialID))
	for _, object := range []client.Object{&o.Namespace, &o.Role, &o.Binding} {
		f.Must(f.admin.Create(f.Context(), object))
	}
}

// start starts or restarts the agent with new caches and no state. No controller
// runs: tests call Reconcile.
func (f *fixture) start() {
	f.Helper()
	var err error
	memberConfig := envtestkit.Config(f.TB)
	memberConfig.Wrap(f.inMember.count)
	f.member, err = cluster.New(memberConfig, func(o *cluster.Options) {
		o.Scheme = f.scheme
		o.Client.Cache = &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}
	})
	f.Must(err)
	f.Must(IndexMember(f.Context(), f.member.GetFieldIndexer()))
	config := envtestkit.As(f.TB, registration.MemberUser(f.name, testkit.CredentialID), v1alpha1.MembersGroup)
	config.Wrap(f.writes.count)
	f.hub, err = NewHub(config, f.name, f.scheme)
	f.Must(err)
	testkit.Run(f, f.member.Start)
	testkit.Run(f, f.hub.Start)
	f.exporter = NewExporter(f.name, f.member, f.hub)
	f.exporter.now = func() time.Time { return f.clock }
	for _, o := range []client.Object{&v1alpha1.MemberExport{}, &discoveryv1.EndpointSlice{}} {
		_, err := f.hub.GetCache().GetInformer(f.Context(), o)
		f.Must(err)
	}
	if !f.hub.GetCache().WaitForCacheSync(f.Context()) || !f.member.GetCache().WaitForCacheSync(f.Context()) {
		f.Fatal("caches did not sync")
	}
}

// namespace makes a namespace of the member.
func (f *fixture) namespace(name string) string {
	f.Helper()
	f.Must(f.admin.Create(f.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	return name
}

// service makes a Service with an export and one slice of two endpoints.
func (f *fixture) service(namespace, name string) {
	f.Helper()
	f.Must(f.member.GetClient().Create(f.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}))
	f.slice(namespace, name, name+"-1", "10.1.0.1", "10.1.0.2")
	f.export(namespace, name)
}

func (f *fixture) export(namespace, name string) {
	f.Helper()
	f.Must(f.member.GetClient().Create(f.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}))
}

func (f *fixture) slice(namespace, service, name string, addresses ...string) {
	f.Helper()
	f.Must(f.member.GetClient().Create(f.Context(), sliceOf(namespace, service, name, addresses...)))
}

func (f *fixture) changeService(namespace, name string, edit func(*corev1.Service)) {
	f.Helper()
	var s corev1.Service
	f.Must(f.member.GetClient().Get(f.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &s))
	edit(&s)
	f.Must(f.member.GetClient().Update(f.Context(), &s))
}

func (f *fixture) changeSlice(namespace, name string, edit func(*discoveryv1.EndpointSlice)) {
	f.Helper()
	var s discoveryv1.EndpointSlice
	f.Must(f.member.GetClient().Get(f.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &s))
	edit(&s)
	f.Must(f.member.GetClient().Update(f.Context(), &s))
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

// hubName is the name on the hub of a slice of the member.
func hubName(namespace, service, name string) string {
	return serviceexport.SliceName(sliceOf(namespace, service, name))
}

// reconcile reconciles a service's export and these slices of it, and returns
// the writes to the hub.
func (f *fixture) reconcile(namespace, name string, sliceNames ...string) []string {
	f.Helper()
	f.writes.reset()
	f.Must(f.reconcileExport(namespace, name))
	for _, s := range sliceNames {
		f.Must(f.reconcileSlice(hubName(namespace, name, s)))
	}
	return f.writes.list()
}

func (f *fixture) reconcileExport(namespace, name string) error {
	_, err := f.exporter.ReconcileExport(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}})
	return err
}

func (f *fixture) reconcileSlice(name string) error {
	_, err := f.exporter.ReconcileSlice(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	return err
}

// wantWrites checks the hub's writes: "PATCH memberexports" and such.
func (f *fixture) wantWrites(when string, got []string, want ...string) {
	f.Helper()
	if !slices.Equal(got, want) {
		f.Errorf("%s the hub got %v, want %v", when, got, want)
	}
}

// wantConditions checks a ServiceExport's conditions, each "Type=Status Reason".
func (f *fixture) wantConditions(namespace, name string, want ...string) {
	f.Helper()
	var export mcsv1beta1.ServiceExport
	f.Must(f.admin.Get(f.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &export))
	if got := testkit.Conditions(export.Status.Conditions); !slices.Equal(got, want) {
		f.Errorf("ServiceExport %s/%s has conditions %q, want %q", namespace, name, got, want)
	}
}

func (f *fixture) memberExport(namespace, name string) *v1alpha1.MemberExport {
	f.Helper()
	return f.onHub(name+"."+namespace, &v1alpha1.MemberExport{}).(*v1alpha1.MemberExport)
}

// onHub reads an object of the member's namespace on the hub; it must exist.
func (f *fixture) onHub(name string, into client.Object) client.Object {
	f.Helper()
	f.Must(f.admin.Get(f.Context(), types.NamespacedName{Namespace: v1alpha1.MemberNamespace(f.name), Name: name}, into))
	return into
}

// wantNotOnHub checks that an object of the member's namespace does not exist.
func (f *fixture) wantNotOnHub(name string, into client.Object) {
	f.Helper()
	err := f.admin.Get(f.Context(), types.NamespacedName{Namespace: v1alpha1.MemberNamespace(f.name), Name: name}, into)
	if client.IgnoreNotFound(err) != nil || err == nil {
		f.Errorf("%T %s is on the hub (%v)", into, name, err)
	}
}

// setHubConditions writes conditions of a MemberExport's present version to its
// status, as the hub does.
func (f *fixture) setHubConditions(namespace, name string, conditions ...metav1.Condition) {
	f.Helper()
	e := f.memberExport(namespace, name)
	before := e.ResourceVersion
	for _, c := range conditions {
		c.ObservedGeneration = e.Generation
		meta.SetStatusCondition(&e.Status.Conditions, c)
	}
	f.Must(f.admin.Status().Update(f.Context(), e))
	f.waitForHubCache(e, before)
}

// waitForHubCache waits until the agent's cache of the hub has another version of
// an object: what an event would do for a controller.
func (f *fixture) waitForHubCache(o client.Object, before string) {
	f.Helper()
	key := client.ObjectKeyFromObject(o)
	for f.Context().Err() == nil {
		have := o.DeepCopyObject().(client.Object)
		f.Must(f.hub.GetCache().Get(f.Context(), key, have))
		if have.GetResourceVersion() != before {
			return
		}
	}
}

// waitForGone waits until the agent's cache of the hub lacks a slice.
func (f *fixture) waitForGone(name string) {
	f.Helper()
	key := types.NamespacedName{Namespace: v1alpha1.MemberNamespace(f.name), Name: name}
	f.Eventually("slice "+name+" is gone", func() bool {
		return apierrors.IsNotFound(f.hub.GetCache().Get(f.Context(), key, &discoveryv1.EndpointSlice{}))
	})
}

// writes counts the requests of a client that write.
type writes struct {
	mu       sync.Mutex
	requests []string // guarded by mu: those that were sent
	cut      bool     // guarded by mu: the hub cannot be reached
	last     int      // guarded by mu: the number of the last write that is sent; 0: none is the last
	lost     bool     // guarded by mu: nobody gets the answer to the last write
	full     bool     // guarded by mu: a quota takes no slice more
}

func (w *writes) count(next http.RoundTripper) http.RoundTripper {
	return testkit.RoundTripper(func(r *http.Request) (*http.Response, error) {
		send, lost := w.add(r)
		if !send {
			return nil, errors.New("no route to the hub")
		}
		if w.refuses(r) {
			return overQuota(r), nil
		}
		response, err := next.RoundTrip(r)
		if lost && err == nil {
			_ = response.Body.Close()
			return nil, errors.New("connection lost")
		}
		return response, err
	})
}

// add counts a request if it writes, and tells whether it is sent and its answer lost.
func (w *writes) add(r *http.Request) (send, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reads := r.Method == http.MethodGet
	if w.cut || !reads && w.last > 0 && len(w.requests) >= w.last {
		return false, false
	}
	if !reads {
		parts := strings.Split(r.URL.Path, "/")
		w.requests = append(w.requests, r.Method+" "+parts[slices.Index(parts, "namespaces")+2])
	}
	return true, !reads && w.lost && len(w.requests) == w.last
}

// stopAfter makes write n the last one, whose answer may be lost; 0: writes go on.
func (w *writes) stopAfter(n int, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.lost = n, lost
}

func (w *writes) setFull(full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = full
}

func (w *writes) refuses(r *http.Request) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full && r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/endpointslices/")
}

// overQuota is the answer of an API server's plugin ResourceQuota, which this one has not.
func overQuota(r *http.Request) *http.Response {
	answer := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,` +
		`"message":"endpointslices.discovery.k8s.io \"web\" is forbidden: exceeded quota: crossway-member, requested: 1, used: 1, limited: 1"}`
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": []string{"application/json"}},
		Body: io.NopCloser(strings.NewReader(answer)), Request: r}
}

func (w *writes) setCut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

func (w *writes) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = nil
}

func (w *writes) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.requests)
}
