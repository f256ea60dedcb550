package server_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/registration/renewal"
)

// rotation is a hub whose CA rotates, as its Secrets say, and real Envoys that read their certificates from files as in a
// pod of charts/edge.
type rotation struct {
	testkit.T
	*server.Server
	address string
	secrets *safeInformer
	pools   *safeInformer
	mu      sync.Mutex
	ca      registration.CA
	now     time.Time // of the rotation; certificates are of today
	last    *corev1.Secret
}

func newRotation(t *testing.T, authorize func(registration.EdgeIdentity) error) *rotation {
	t.Helper()
	scheme := clientgoscheme.Scheme
	testkit.Must(t, v1alpha1.AddToScheme(scheme))
	r := &rotation{T: testkit.T{TB: t}, now: time.Now()}
	pair, err := registration.NewEdgeCA(r.now, rand.Reader)
	r.Must(err)
	r.ca = registration.CA{Pair: pair}
	r.Server = server.New(server.Config{OldCALife: time.Second, Authorize: authorize,
		Renew: func(id registration.EdgeIdentity, request []byte) ([]byte, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if len(request) == 0 {
				return r.ca.Bundle(), nil
			}
			signed, err := registration.SignEdgeRequest(r.ca.Issuer(time.Now(), rand.Reader), id, request, time.Hour)
			return append(signed, r.ca.Bundle()...), err
		}})
	r.secrets, r.pools = &safeInformer{}, &safeInformer{}
	informers := safeInformers{&informertest.FakeInformers{Scheme: scheme}, r}
	r.address = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	ready := make(chan struct{})
	close(ready)
	listener := server.NewListener(server.ListenerConfig{Server: r.Server, Address: r.address, Informers: informers,
		Secret: types.NamespacedName{Namespace: "crossway-system", Name: registration.XDSSecret}, Ready: ready, Log: logr.Discard()})
	testkit.Run(t, listener.Start)
	testkit.Eventually(t, "the hub serves edges", func() bool { r.publish(); return isClosed(listener.Serving()) })
	return r
}

// safeInformers are FakeInformers that a Listener may use while a test makes events.
type safeInformers struct {
	*informertest.FakeInformers
	r *rotation
}

func (s safeInformers) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	if _, pools := o.(*v1alpha1.EdgePool); pools {
		return s.r.pools, nil
	}
	return s.r.secrets, nil
}

type safeInformer struct {
	controllertest.FakeInformer
	mu sync.Mutex
}

func (s *safeInformer) AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.FakeInformer.AddEventHandler(handler)
}

func (s *safeInformer) Add(o metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.FakeInformer.Add(o)
}

func (s *safeInformer) Update(before, after metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.FakeInformer.Update(before, after)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// publish writes the Secret of the serving certificate, as the leader does after each step.
func (r *rotation) publish() {
	r.Helper()
	pair, err := registration.NewServerCertificate(r.ca.Issuer(time.Now(), rand.Reader), []string{"127.0.0.1"})
	r.Must(err)
	next := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "crossway-system", Name: registration.XDSSecret},
		Data: map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": r.ca.Bundle(), registration.VersionKey: make([]byte, registration.VersionKeyLength)}}
	if r.last == nil {
		r.secrets.Add(next)
	} else {
		r.secrets.Update(r.last, next)
	}
	r.last = next
}

// step takes one step of the rotation, and publishes it.
func (r *rotation) step(request string, users ...string) registration.Rotated {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(registration.NextCAWait)
	rotated, err := r.ca.Rotate(registration.Rotation{Request: request, OldUsers: users, Now: r.now, Random: rand.Reader})
	r.Must(err)
	if r.ca = rotated.CA; rotated.Changed {
		r.publish()
	}
	return rotated
}

// edgePod is an Envoy, and the Secret that it mounts.
type edgePod struct {
	*rotation
	client.Client
	name    string
	renewer renewal.Renewer
	mount   string
	mounted int
	port    int
}

func (r *rotation) startEdge(name string) *edgePod {
	r.Helper()
	e := &edgePod{rotation: r, name: name, Client: fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).Build(), port: freePort(r), mount: r.TempDir()}
	key := types.NamespacedName{Namespace: "crossway-system", Name: "crossway-edge-us"}
	identity := usEdge
	pair, err := registration.NewEdgeCertificate(r.ca.Issuer(time.Now(), rand.Reader), identity, time.Hour)
	r.Must(err)
	r.Must(e.Create(r.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Data: map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": r.ca.Bundle()}}))
	e.renewer = renewal.Renewer{Client: e.Client, Secret: key, Hub: r.address, ServerName: "127.0.0.1", Log: logr.Discard(), Now: time.Now}
	e.remount()
	e.run()
	return e
}

// renew is one look of the renewal, and the kubelet's update of the mounted files.
func (e *edgePod) renew() {
	e.Helper()
	e.Must(e.renewer.Renew(e.Context()))
	e.remount()
}

// remount writes the Secret's files as a kubelet does: one rename of a link changes them all.
func (e *edgePod) remount() {
	e.Helper()
	var secret corev1.Secret
	e.Must(e.Get(e.Context(), e.renewer.Secret, &secret))
	e.mounted++
	version := fmt.Sprintf("..version-%d", e.mounted)
	e.Must(os.Mkdir(filepath.Join(e.mount, version), 0o700))
	for name, data := range secret.Data {
		e.Must(os.WriteFile(filepath.Join(e.mount, version, name), data, 0o600))
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(e.mount, name)) // there since the first
	}
	e.Must(os.Symlink(version, filepath.Join(e.mount, "..data_tmp")))
	e.Must(os.Rename(filepath.Join(e.mount, "..data_tmp"), filepath.Join(e.mount, "..data")))
}

const sdsFiles = `resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: %s
`

// run starts Envoy with the SDS files of charts/edge.
func (e *edgePod) run() {
	e.Helper()
	binary, err := install.Envoy(e.Context(), os.Stderr)
	e.Must(err)
	dir := e.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		e.Must(os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	own := write("sds-edge.yaml", fmt.Sprintf(sdsFiles+`  tls_certificate:
    certificate_chain: {filename: %[2]s/tls.crt}
    private_key: {filename: %[2]s/tls.key}
    watched_directory: {path: %[2]s}
`, "edge", e.mount))
	ca := write("sds-hub-ca.yaml", fmt.Sprintf(sdsFiles+`  validation_context:
    trusted_ca: {filename: %[2]s/ca.crt}
    watched_directory: {path: %[2]s}
`, "hub-ca", e.mount))
	config := bootstrap(e.address, "CERTIFICATE", "KEY", "CA", freePort(e))
	config = strings.ReplaceAll(config, "envoy-0", e.name)
	config = strings.Replace(config, `tls_certificates: [{certificate_chain: {filename: "CERTIFICATE"}, private_key: {filename: "KEY"}}]`,
		"tls_certificate_sds_secret_configs: [{name: edge, sds_config: {path_config_source: {path: "+own+"}, resource_api_version: V3}}]", 1)
	config = strings.Replace(config, `validation_context: {trusted_ca: {filename: "CA"}}`,
		"validation_context_sds_secret_config: {name: hub-ca, sds_config: {path_config_source: {path: "+ca+"}, resource_api_version: V3}}", 1)
	logs := filepath.Join(dir, "envoy.log")
	envoy := exec.Command(binary, "-c", write("envoy.yaml", config), "--disable-hot-restart", "--concurrency", "1", "-l", "warn", "--log-path", logs)
	e.Must(envoy.Start())
	e.Cleanup(func() {
		_ = envoy.Process.Kill()
		_ = envoy.Wait()
		if text, err := os.ReadFile(logs); e.Failed() && err == nil {
			e.Logf("Envoy's log:\n%s", text)
		}
	})
}

// presents waits until an edge is connected with a certificate of a CA.
func (r *rotation) presents(name, ca string) {
	r.Helper()
	testkit.Eventually(r, name+" is connected with a certificate of "+ca, func() bool {
		return slices.ContainsFunc(r.Connected(), func(e server.Edge) bool { return e.Node == name && e.CA == ca })
	})
}

// requests sends 300 requests a second through an Envoy until stop, which returns how many there were and how many failed.
func requests(port int) (stop func() (sent, failed int64)) {
	ctx, cancel := context.WithCancel(context.Background())
	var sent, failed atomic.Int64
	var clients sync.WaitGroup
	for range 6 {
		clients.Go(func() {
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					tick.Stop()
					return
				case <-tick.C:
				}
				sent.Add(1)
				answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
				if err != nil || answer.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					answer.Body.Close()
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		clients.Wait()
		return sent.Load(), failed.Load()
	}
}

// The edge CA is rotated while a real Envoy serves 300 requests a second: none fails, and the Envoy ends up with
// certificates of the new CA by its files alone. An Envoy that sees nothing of the rotation stays connected until the old
// CA is out; until then it is named as who still uses it, and afterwards it is refused, which the hub counts.
func TestRotationUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Envoys: run without -short")
	}
	r := newRotation(t, func(registration.EdgeIdentity) error { return nil })
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	u, err := url.Parse(backend.URL)
	r.Must(err)
	backendPort, err := strconv.Atoi(u.Port())
	r.Must(err)
	e := r.startEdge("envoy-0")
	r.startEdge("away")
	wanted := server.Snapshot{Generation: 1, Clusters: []server.Resource{clusterOf(t, "c0", time.Second)},
		Listeners: []server.Resource{listenerOf(t, "front", e.port)}, Routes: []server.Resource{routeOf(t, "front", "/.*", "c0")}}
	r.UpdateLoadAssignments(pool, []server.Resource{assignmentOf(t, "c0", backendPort)}, nil)
	r.SetResources(pool, wanted)
	testkit.Eventually(t, "the Envoy serves", func() bool {
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", e.port))
		if err == nil {
			answer.Body.Close()
		}
		return err == nil && answer.StatusCode == http.StatusOK
	})
	first := r.ca.Name()
	r.presents("envoy-0", first)
	r.presents("away", first)
	stop := requests(e.port)

	r.step(registration.RotateStart)
	e.renew()
	r.step("")
	second := r.ca.Name()
	e.renew()
	r.presents("envoy-0", second)
	r.presents("away", first) // by the certificate that the old CA signed of the new one
	if held := r.step(registration.RotateFinish, "away of EdgePool "+pool); held.Changed || !strings.Contains(held.Note, "away of EdgePool") {
		t.Errorf("finished although an edge uses the old CA: %s", held.Note)
	}
	r.step(registration.RotateForce)
	e.renew()
	testkit.Eventually(t, "the Envoy that was away is refused", func() bool {
		return !slices.ContainsFunc(r.Connected(), func(e server.Edge) bool { return e.Node == "away" }) && refusedCertificates(r.Server) > 0
	})
	wanted.Generation++
	wanted.Routes = []server.Resource{routeOf(t, "front", "/.+|/", "c0")}
	r.SetResources(pool, wanted)
	testkit.Eventually(t, "the Envoy takes a change after the rotation", func() bool {
		return slices.ContainsFunc(r.Edges(pool), func(s server.EdgeState) bool { return s.Edge.Node == "envoy-0" && s.Generation == wanted.Generation })
	})
	sent, failed := stop()
	t.Logf("%d requests, %d failed", sent, failed)
	if failed > 0 || sent < 100 {
		t.Errorf("%d of %d requests failed", failed, sent)
	}
}

func refusedCertificates(s *server.Server) float64 {
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() == "crossway_xds_refused_certificates_total" {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	return 0
}

// A pool that was deleted and made again ends the streams of its former edges, also where the hub sees that as one change
// without another generation; and so does a pool that no longer says that it was restored.
func TestPoolThatIsMadeAgain(t *testing.T) {
	restored := map[string]string{registration.AnnotationRestoredFrom: usEdge.PoolUID}
	for name, after := range map[string]metav1.ObjectMeta{
		"another UID":                {Name: pool, Generation: 1, UID: "uid-2"},
		"no longer the restored one": {Name: pool, Generation: 1, UID: "uid-3"},
	} {
		t.Run(name, func(t *testing.T) {
			before := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: pool, Generation: 1, UID: types.UID(usEdge.PoolUID)}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}}
			if after.UID == "uid-3" {
				before.UID, before.Annotations = "uid-3", restored
			}
			var mu sync.Mutex
			current := before
			r := newRotation(t, func(id registration.EdgeIdentity) error {
				mu.Lock()
				defer mu.Unlock()
				return registration.CheckEdge(id, []v1alpha1.EdgePool{*current})
			})
			h := &hub{Server: r.Server, t: t, address: r.address, ca: r.ca.Pair}
			e := open(t, h.dial(h.certificate(usEdge)), "envoy-0")
			e.asks(resourcev3.ClusterType, nil)
			testkit.Eventually(t, "the edge is connected", func() bool { return len(r.Connected()) == 1 })
			made := &v1alpha1.EdgePool{ObjectMeta: after, Spec: before.Spec}
			mu.Lock()
			current = made
			mu.Unlock()
			r.pools.Update(before, made)
			timer := time.AfterFunc(timeout, e.cancel)
			defer timer.Stop()
			_, err := e.stream.Recv()
			if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "earlier EdgePool") {
				t.Errorf("the stream ended with %v", err)
			}
		})
	}
}
