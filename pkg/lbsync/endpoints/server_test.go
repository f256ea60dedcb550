package endpoints

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// The Loop on a real API server: it publishes nothing before it has seen every slice, then exactly what a written slice
// changes; it counts a Service of the hub's own cluster, and moves a drained member at once.
func TestRealAPIServer(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		testkit.Must(t, add(scheme))
	}
	api := connect(t, scheme)
	web, shop := memberSlice("us-west", "web", "10.1.0.1"), memberSlice("us-west", "shop", "10.1.0.2")
	own := memberSlice("us-west", "own", "10.9.0.1", "10.1.0.9") // of the hub: 10.1.0.9 is not
	own.Namespace, own.Labels = "shop", map[string]string{discoveryv1.LabelServiceName: "own"}
	api.create(namespace("member-us-west"), namespace("shop"), pool("us"), clusterOf("us-west", "10.1.0.0/16"), web, shop, own)

	caches, err := cache.New(envtestkit.Config(t), cache.Options{Scheme: scheme})
	testkit.Must(t, err)
	edges := &fakeEdges{pools: map[string]map[string]envoy.Resource{}}
	loop := New(Config{Cache: caches, Publisher: edges, Hub: Hub{Place: fleet.Place{Region: "us"}, CIDRs: prefixes("10.9.0.0/16")}})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); <-loop.ended })
	assigned := make(chan struct{})
	go func() {
		hub := assignmentOf("hub", "own")
		hub.Backends[0].Backend.Kind = fleet.Service
		loop.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "shop"), assignmentOf("c", "web", "shop"), hub}, nil)
		close(assigned)
	}()
	select {
	case <-assigned:
		t.Fatal("assignments were published before any slice was seen")
	case <-time.After(50 * time.Millisecond):
	}
	go func() { _ = caches.Start(ctx) }()
	go func() { _ = loop.Start(ctx) }()
	<-assigned
	if got := edges.takeChanged(); got != "us:a us:b us:c us:hub" {
		t.Fatalf("first: %s", got)
	}
	if body := string(edges.pools["us"]["hub"].Body.Value); !strings.Contains(body, "10.9.0.1") || strings.Contains(body, "10.1.0.9") {
		t.Error("a Service of the hub has endpoints outside of its CIDRs, or none")
	}

	web.Endpoints = append(web.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.1.0.3"}})
	api.update(web)
	edges.await(t, "us:a us:c")
	api.delete(web)
	edges.await(t, "us:a us:c")

	east := memberSlice("us-east", "shop", "10.2.0.1")
	api.create(namespace("member-us-east"), clusterOf("us-east", "10.2.0.0/16"), east)
	edges.await(t, "us:b us:c")
	west := clusterOf("us-west", "10.1.0.0/16")
	api.get(west)
	west.Spec.Capacity.Scaler = new(int32)
	api.update(west)
	edges.await(t, "us:b us:c")
	if got := edges.versions("us")["b"]; !strings.HasSuffix(got, ";ServiceImport/shop/shop=us-east:1000000") {
		t.Errorf("us-west is drained: %s", got)
	}
}

// await takes what was published until it is want; more, or something else, is an error.
func (h *fakeEdges) await(t *testing.T, want string) {
	t.Helper()
	got := map[string]bool{}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for _, one := range strings.Fields(h.takeChanged()) {
			got[one] = true
		}
		if len(got) >= len(strings.Fields(want)) {
			break
		}
	}
	for _, one := range strings.Fields(want) {
		if !got[one] {
			t.Fatalf("published %v, want %s", got, want)
		}
		delete(got, one)
	}
	if len(got) > 0 {
		t.Errorf("published %v beside %s", got, want)
	}
}

// server is the API server, a mistake ends the test.
type server struct {
	testkit.T
	client.Client
}

func connect(t testing.TB, scheme *runtime.Scheme) server {
	c, err := client.New(envtestkit.Config(t), client.Options{Scheme: scheme})
	testkit.Must(t, err)
	return server{testkit.T{TB: t}, c}
}

func (s server) create(objects ...client.Object) {
	s.Helper()
	for _, o := range objects {
		s.Must(s.Create(s.Context(), o))
	}
}

func (s server) update(o client.Object) { s.Helper(); s.Must(s.Update(s.Context(), o)) }
func (s server) delete(o client.Object) { s.Helper(); s.Must(s.Delete(s.Context(), o)) }
func (s server) get(o client.Object) {
	s.Helper()
	s.Must(s.Get(s.Context(), client.ObjectKeyFromObject(o), o))
}

func namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func pool(name string) *v1alpha1.EdgePool {
	return &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
}

func clusterOf(name, cidr string) *v1alpha1.MemberCluster {
	return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: "us", EndpointCIDRs: []string{cidr}}}
}
