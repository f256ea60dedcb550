package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	imports "crossway.dev/crossway/pkg/serviceimport/agent"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

// asAgent makes the test binary be the program: a restart is a new process.
const asAgent = "CROSSWAY_TEST_AS_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(asAgent) != "" {
		main()
		return
	}
	envtestkit.Main(m)
}

func TestOptions(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--cluster=us-west --hub-kubeconfig=f", ""},
		{"", "--cluster is missing;--hub-kubeconfig is missing"},
		{"--cluster=US --hub-kubeconfig=f", "--cluster=US cannot be"},
		{"--cluster=hub --hub-kubeconfig=f", "--cluster=hub cannot be"},
		{"--cluster=" + strings.Repeat("a", 51) + " --hub-kubeconfig=f", "cannot be the name"},
		{"--cluster=us-west --hub-kubeconfig=f --leader-elect", "--leader-elect needs --namespace"},
		{"--cluster=us-west --hub-kubeconfig=f --log-level=loud", `--log-level "loud"`},
		{"--cluster=us-west --hub-kubeconfig=/does/not/exist --kubeconfig=/does/not/exist", "--kubeconfig: "},
		{"--cluster=us-west extra", `unexpected argument "extra"`},
		{"--no-such-flag", "not defined"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := run(ctx, strings.Fields(c.args), io.Discard)
		for want := range strings.SplitSeq(c.want, ";") {
			if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", c.args, err, want)
			}
		}
	}
}

// The whole program against a hub's controllers: the agent waits to be let in,
// 200 exports at once become imports, one slice's change is on the hub soon,
// and a restart changes nothing there. One API server plays member and hub.
func TestWholeWay(t *testing.T) {
	const exports = 200
	w := newWorld(t)
	agent := w.startAgent()
	w.awaitLog(agent, "waiting for the hub")
	w.must(w.admin.Create(t.Context(), &v1alpha1.MemberCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "whole"},
		Spec:       v1alpha1.MemberClusterSpec{Accepted: true, Region: "us", EndpointCIDRs: []string{"10.1.0.0/16"}},
	}))
	w.await("the agent to be ready", time.Minute, func() bool { return agent.ready() })

	for i := range exports {
		w.service(i)
	}
	start := time.Now()
	var creating sync.WaitGroup
	for i := range exports {
		creating.Go(func() { w.export(i) })
	}
	creating.Wait()
	took := w.imported(start, exports)
	slices.Sort(took)
	t.Logf("%d exports at once: imports p50 %s, max %s", exports, took[exports/2], took[exports-1])
	if took[exports-1] > 40*time.Second { // ten times the goal
		t.Errorf("imports took %s", took[exports-1])
	}
	w.await("all ServiceExports to be offered", time.Minute, w.allOffered)

	w.sliceChanges()
	w.await("the hub to settle", time.Minute, w.settled())
	before := w.versions()
	agent.stop()
	agent = w.startAgent()
	w.await("the restarted agent to be ready", time.Minute, func() bool { return agent.ready() })
	w.await("the hub to settle", time.Minute, w.settled())
	if after := w.versions(); after != before {
		t.Errorf("the restart changed the hub:\n%s\nbefore:\n%s", after, before)
	}
}

// world is one API server with a hub's controllers for member "whole".
type world struct {
	t      *testing.T
	admin  client.Client
	hubCfg string // kubeconfig of the member's user
}

const shop = "whole-shop"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, hubCfg: kubeconfig(t, envtestkit.As(t, registration.User("whole"), v1alpha1.MembersGroup))}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		w.must(add(scheme))
	}
	var err error
	config := rest.CopyConfig(envtestkit.Config(t))
	w.admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	w.must(err)
	w.must(w.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}))
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cache.Options{ByObject: registrationhub.CacheByObject()},
	})
	w.must(err)
	registrar, err := registrationhub.NewRegistrar(mgr, nil)
	w.must(err)
	w.must(registrar.SetupWithManager(mgr))
	merger, err := importhub.NewMerger(mgr, nil)
	w.must(err)
	w.must(merger.SetupWithManager(mgr))
	projector, err := imports.NewProjector(mgr, mgr)
	w.must(err)
	w.must(projector.SetupWithManager(mgr))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mgr.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) await(what string, patience time.Duration, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// running is an agent that runs until it is stopped.
type running struct {
	stop   func()
	health string
	log    *lockedBuffer
}

func (w *world) startAgent() *running {
	w.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	r := &running{health: listener.Addr().String(), log: &lockedBuffer{}}
	w.must(listener.Close())
	ctx, cancel := context.WithCancel(context.Background())
	agent := exec.CommandContext(ctx, os.Args[0],
		"--cluster=whole", "--hub-kubeconfig="+w.hubCfg, "--kubeconfig="+envtestkit.Kubeconfig(w.t),
		"--metrics-addr=0", "--health-addr="+r.health, "--leader-elect", "--namespace="+shop)
	agent.Env = append(os.Environ(), asAgent+"=yes")
	agent.Stderr = r.log
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) }
	agent.WaitDelay = 10 * time.Second
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.must(agent.Start())
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := agent.Wait(); agent.ProcessState.ExitCode() != 0 {
			w.t.Errorf("agent: %v\n%s", err, r.log)
		}
	})
	w.t.Cleanup(r.stop)
	return r
}

func (r *running) ready() bool {
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + r.health + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (w *world) awaitLog(r *running, text string) {
	w.t.Helper()
	w.await("the log to say "+text, time.Minute, func() bool { return strings.Contains(r.log.String(), text) })
}

func (w *world) service(i int) {
	w.t.Helper()
	name := fmt.Sprint("web-", i)
	w.must(w.admin.Create(w.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}))
	http, port := "http", int32(8080)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: shop, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &http, Port: &port}},
	}
	for j := range 50 {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", i, j+1)}})
	}
	w.must(w.admin.Create(w.t.Context(), s))
}

func (w *world) export(i int) {
	err := w.admin.Create(w.t.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: fmt.Sprint("web-", i)}})
	if err != nil {
		w.t.Error(err)
	}
}

// imported watches until there are n ServiceImports and says when each came.
func (w *world) imported(start time.Time, n int) []time.Duration {
	w.t.Helper()
	seen := map[types.UID]time.Duration{}
	w.await("the imports", 2*time.Minute, func() bool {
		var list mcsv1beta1.ServiceImportList
		w.must(w.admin.List(w.t.Context(), &list, client.InNamespace(shop)))
		for _, i := range list.Items {
			if _, known := seen[i.UID]; !known {
				seen[i.UID] = time.Since(start)
			}
		}
		return len(seen) == n
	})
	var took []time.Duration
	for _, d := range seen {
		took = append(took, d)
	}
	return took
}

func (w *world) allOffered() bool {
	var list mcsv1beta1.ServiceExportList
	w.must(w.admin.List(w.t.Context(), &list, client.InNamespace(shop)))
	for _, e := range list.Items {
		ready := slices.IndexFunc(e.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == "Ready" && c.Status == "True" && c.Message == "offered to 0 other clusters"
		})
		if ready < 0 {
			return false
		}
	}
	return true
}

// sliceChanges changes slices one by one and measures until each is on the hub.
func (w *world) sliceChanges() {
	w.t.Helper()
	watcher, err := w.admin.(client.WithWatch).Watch(w.t.Context(), &discoveryv1.EndpointSliceList{}, client.InNamespace("member-whole"))
	w.must(err)
	defer watcher.Stop()
	var took []time.Duration
	for i := range 30 {
		var s discoveryv1.EndpointSlice
		w.must(w.admin.Get(w.t.Context(), types.NamespacedName{Namespace: shop, Name: fmt.Sprint("web-", i)}, &s))
		address := fmt.Sprintf("10.1.%d.200", i)
		s.Endpoints[0].Addresses[0] = address
		start := time.Now()
		w.must(w.admin.Update(w.t.Context(), &s))
		for e := range watcher.ResultChan() {
			pushed, ok := e.Object.(*discoveryv1.EndpointSlice)
			if ok && slices.ContainsFunc(pushed.Endpoints, func(p discoveryv1.Endpoint) bool { return p.Addresses[0] == address }) {
				took = append(took, time.Since(start))
				break
			}
		}
	}
	slices.Sort(took)
	if len(took) != 30 {
		w.t.Fatalf("%d of 30 changes came", len(took))
	}
	w.t.Logf("slice write in the member -> on the hub: p50 %s, max %s", took[15], took[29])
}

// versions are those of all that the agent writes on the hub, but the Lease.
func (w *world) versions() string {
	w.t.Helper()
	var b strings.Builder
	for _, list := range []client.ObjectList{&v1alpha1.MemberExportList{}, &discoveryv1.EndpointSliceList{}, &v1alpha1.FleetServiceList{}} {
		w.must(w.admin.List(w.t.Context(), list, client.InNamespace("member-whole")))
		items, err := runtimeItems(list)
		w.must(err)
		for _, o := range items {
			fmt.Fprintf(&b, "%T %s %s\n", o, o.GetName(), o.GetResourceVersion())
		}
	}
	return b.String()
}

// settled tells whether nothing was written since it was last asked.
func (w *world) settled() func() bool {
	var last string
	next := time.Now()
	return func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = time.Now().Add(500 * time.Millisecond)
		now := w.versions()
		same := now == last
		last = now
		return same
	}
}

func runtimeItems(list client.ObjectList) ([]client.Object, error) {
	var objects []client.Object
	switch l := list.(type) {
	case *v1alpha1.MemberExportList:
		for i := range l.Items {
			objects = append(objects, &l.Items[i])
		}
	case *discoveryv1.EndpointSliceList:
		for i := range l.Items {
			objects = append(objects, &l.Items[i])
		}
	case *v1alpha1.FleetServiceList:
		for i := range l.Items {
			objects = append(objects, &l.Items[i])
		}
	default:
		return nil, fmt.Errorf("unknown list %T", list)
	}
	return objects, nil
}

func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub.kubeconfig")
	c := clientcmdapi.NewConfig()
	c.Clusters["hub"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData, CertificateAuthority: config.CAFile}
	c.AuthInfos["agent"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, ClientCertificate: config.CertFile, ClientKey: config.KeyFile,
	}
	c.Contexts["hub"] = &clientcmdapi.Context{Cluster: "hub", AuthInfo: "agent"}
	c.CurrentContext = "hub"
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	return file
}

// lockedBuffer is a log that one goroutine reads while others write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
