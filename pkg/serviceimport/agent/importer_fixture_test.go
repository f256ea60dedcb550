package agent

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/serviceimport"
)

// member is a member cluster, which is also the hub that has the ConfigMap, and a
// member API in front of another API server, which holds what the hub serves.
type member struct {
	testkit.T
	scheme      *runtime.Scheme
	client      client.Client // of the member, without a cache
	served      client.Client // of the member API's objects
	api         *fakeAPI
	namespace   string
	credentials *rest.Config
	mu          sync.Mutex
	writes      []string // guarded by mu
	refuse      func(n int) bool
	missingTime time.Duration // of agents that start
}

// fakeAPI passes requests on to an API server, or answers by itself.
type fakeAPI struct {
	*httptest.Server
	proxy  http.Handler
	answer atomic.Pointer[http.HandlerFunc] // nil: pass on
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if answer := a.answer.Load(); answer != nil {
		(*answer)(w, r)
		return
	}
	a.proxy.ServeHTTP(w, r)
}

// answers makes the API answer by itself, and ends all connections.
func (a *fakeAPI) answers(with http.HandlerFunc) {
	if with == nil {
		a.answer.Store(nil)
	} else {
		a.answer.Store(&with)
	}
	a.CloseClientConnections()
}

// status answers every request with a status code.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// nothing answers like a hub without its memory.
func nothing(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") != "" {
		w.WriteHeader(http.StatusGone)
		_ = json.NewEncoder(w).Encode(apierrors.NewResourceExpired("gone").Status())
		return
	}
	kind := "ServiceImportList"
	apiVersion := mcsv1beta1.GroupVersion.String()
	if strings.Contains(r.URL.Path, "endpointslices") {
		kind, apiVersion = "EndpointSliceList", discoveryv1.SchemeGroupVersion.String()
	}
	_, _ = fmt.Fprintf(w, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"1"},"items":[]}`, kind, apiVersion)
}

func newMember(t *testing.T, namespace string) *member {
	t.Helper()
	m := &member{T: testkit.T{TB: t}, scheme: runtime.NewScheme(), namespace: namespace, missingTime: missingTime}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		m.Must(add(m.scheme))
	}
	m.credentials = envtestkit.Other(t)
	var err error
	m.client, err = client.New(envtestkit.Config(t), client.Options{Scheme: m.scheme})
	m.Must(err)
	m.served, err = client.New(m.credentials, client.Options{Scheme: m.scheme})
	m.Must(err)

	target, err := url.Parse(m.credentials.Host)
	m.Must(err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport, err = rest.TransportFor(m.credentials)
	m.Must(err)
	proxy.FlushInterval = -1
	m.api = &fakeAPI{proxy: proxy}
	m.api.Server = httptest.NewTLSServer(m.api)
	t.Cleanup(m.api.Close)
	for _, name := range []string{v1alpha1.MemberNamespace("here"), namespace} {
		m.createNamespace(m.client, name)
	}
	m.createNamespace(m.served, namespace)
	place := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace("here"), Name: v1alpha1.MemberAPIConfigMap},
		Data: map[string]string{v1alpha1.MemberAPIAddress: m.api.URL,
			v1alpha1.MemberAPICA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.api.Certificate().Raw}))},
	}
	m.Must(client.IgnoreNotFound(m.client.Delete(t.Context(), place.DeepCopy())))
	m.Must(m.client.Create(t.Context(), place))
	t.Cleanup(m.clean)
	return m
}

// clean deletes what a test leaves, because all tests share the API servers.
func (m *member) clean() {
	for _, c := range []client.Client{m.served, m.client} {
		for _, o := range []client.Object{&mcsv1beta1.ServiceImport{}, &mcsv1beta1.ServiceExport{}, &discoveryv1.EndpointSlice{}, &corev1.Service{}} {
			m.Must(c.DeleteAllOf(context.Background(), o, client.InNamespace(m.namespace)))
		}
	}
}

func (m *member) createNamespace(c client.Client, name string) {
	m.Must(client.IgnoreAlreadyExists(c.Create(m.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})))
}

// start runs an agent, of which only the Importer is looked at.
func (m *member) start() (importer *Importer, stop func()) {
	m.Helper()
	config := envtestkit.Config(m.TB)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return testkit.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet && !strings.Contains(r.URL.Path, "/events") && !m.count(r.Method+" "+r.URL.Path) {
				return nil, fmt.Errorf("refused by the test")
			}
			return next.RoundTrip(r)
		})
	})
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: m.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: ctrlconfig.Controller{SkipNameValidation: ptr.To(true)},
	})
	m.Must(err)
	api, err := NewMemberAPI(func() *rest.Config { return m.credentials }, "test", mgr.GetAPIReader(), "here", m.scheme)
	m.Must(err)
	m.Must(mgr.Add(api))
	importer, err = NewImporter("here", mgr, api)
	m.Must(err)
	importer.silence.missingTime = m.missingTime
	importer.events = events.NewFakeRecorder(100)
	m.Must(importer.SetupWithManager(mgr, nil))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mgr.Start(ctx); err != nil {
			m.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	m.Cleanup(stop)
	return importer, stop
}

// count counts a write, and tells whether it may be done.
func (m *member) count(write string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes = append(m.writes, write)
	return m.refuse == nil || !m.refuse(len(m.writes))
}

// taken returns the writes since its last call.
func (m *member) taken() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.writes
	m.writes = nil
	return taken
}

// settle waits until nothing is written for a while.
func (m *member) settle() {
	m.Helper()
	count := func() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.writes) }
	last, since := count(), time.Now()
	m.Eventually("the agent to settle", func() bool {
		if now := count(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 700*time.Millisecond
	})
}

// serve makes the member API serve an import of clusters a and b.
func (m *member) serve(name string, change ...func(*mcsv1beta1.ServiceImport)) *mcsv1beta1.ServiceImport {
	m.Helper()
	i := &mcsv1beta1.ServiceImport{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: m.namespace, Name: name, Annotations: map[string]string{v1alpha1.AnnotationRegion: "us", "note": "x"},
			Labels: map[string]string{serviceimport.LabelManagedBy: serviceimport.ManagedBy, "team": "shop"},
		},
		Spec: mcsv1beta1.ServiceImportSpec{
			Type: mcsv1beta1.ClusterSetIP, IPFamilies: []corev1.IPFamily{"IPv4"}, SessionAffinity: "None",
			Ports: []mcsv1beta1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80, AppProtocol: ptr.To("kubernetes.io/h2c")}},
		},
	}
	for _, c := range change {
		c(i)
	}
	clusters := i.Status
	m.Must(m.served.Create(m.Context(), i))
	i.Status = clusters
	if len(i.Status.Clusters) == 0 {
		i.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: "a"}, {Cluster: "b"}}
	}
	m.Must(m.served.Status().Update(m.Context(), i))
	return i
}

// serveSlice makes it serve a slice of one cluster.
func (m *member) serveSlice(service, cluster, region string, addresses ...string) *discoveryv1.EndpointSlice {
	m.Helper()
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: service + "-" + cluster, Labels: map[string]string{
			mcsv1beta1.LabelServiceName: service, mcsv1beta1.LabelSourceCluster: cluster, v1alpha1.LabelSourceRegion: region,
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Zone: ptr.To(region + "-1")})
	}
	m.Must(m.served.Create(m.Context(), s))
	return s
}

// export makes the member export a Service with one endpoint, and returns its slice.
func (m *member) export(name, address string) *discoveryv1.EndpointSlice {
	m.Helper()
	meta := metav1.ObjectMeta{Namespace: m.namespace, Name: name}
	own := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: m.namespace, Name: name + "-own", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("www"), Port: ptr.To(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}, NodeName: ptr.To("n1")}},
	}
	for _, o := range []client.Object{
		&mcsv1beta1.ServiceExport{ObjectMeta: meta}, own,
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "www", Port: 80, AppProtocol: ptr.To("kubernetes.io/h2c")}}}},
	} {
		m.Must(m.client.Create(m.Context(), o))
	}
	return own
}

// describe is what the member has of an import, as text.
func (m *member) describe(name string) string {
	m.Helper()
	var b strings.Builder
	var i mcsv1beta1.ServiceImport
	switch err := m.client.Get(m.Context(), types.NamespacedName{Namespace: m.namespace, Name: name}, &i); {
	case apierrors.IsNotFound(err):
	case err != nil:
		m.Fatal(err)
	default:
		var clusters []string
		for _, c := range i.Status.Clusters {
			clusters = append(clusters, c.Cluster)
		}
		fmt.Fprintf(&b, "import %s ips=%d clusters=%v slices=%s %v\n", i.Spec.Type, len(i.Spec.IPs), clusters, i.Status.EndpointSliceObjects, testkit.Conditions(i.Status.Conditions))
	}
	var s corev1.Service
	if err := m.client.Get(m.Context(), types.NamespacedName{Namespace: m.namespace, Name: serviceimport.DerivedName(name)}, &s); err == nil {
		fmt.Fprintf(&b, "service %s", s.Spec.Type)
		for _, p := range s.Spec.Ports {
			fmt.Fprintf(&b, " %s", p.Name)
		}
		fmt.Fprintln(&b)
		if len(i.Spec.IPs) > 0 && i.Spec.IPs[0] != s.Spec.ClusterIP {
			fmt.Fprintln(&b, "another IP than the import")
		}
	}
	var list discoveryv1.EndpointSliceList
	m.Must(m.client.List(m.Context(), &list, client.InNamespace(m.namespace), client.MatchingLabels{mcsv1beta1.LabelServiceName: name}))
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int {
		return strings.Compare(a.Labels[mcsv1beta1.LabelSourceCluster], b.Labels[mcsv1beta1.LabelSourceCluster])
	})
	for _, s := range list.Items {
		fmt.Fprintf(&b, "slice of %s", s.Labels[mcsv1beta1.LabelSourceCluster])
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, " %s", e.Addresses[0])
		}
		for _, p := range s.Ports {
			fmt.Fprintf(&b, " %s=%d", *p.Name, *p.Port)
		}
		if s.Labels[discoveryv1.LabelServiceName] != "" {
			fmt.Fprint(&b, " for kube-proxy")
		}
		if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != i.UID {
			fmt.Fprint(&b, " of another owner")
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// want waits for a description.
func (m *member) want(name, want string) {
	m.Helper()
	testkit.EventuallySeen(m.TB, "import "+name+" to be\n"+want, func() (bool, any) {
		got := m.describe(name)
		return got == want, "\n" + got
	})
}
