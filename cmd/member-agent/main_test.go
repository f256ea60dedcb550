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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	identityagent "crossway.dev/crossway/pkg/registration/agent"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	imports "crossway.dev/crossway/pkg/serviceimport/agent"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

// asAgent makes the test binary run the program, so that a restart is a new process.
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
		{"", "--namespace is missing"},
		{"--namespace=crossway-system --log-level=loud", `--log-level "loud"`},
		{"--namespace=crossway-system --kubeconfig=/does/not/exist", "--kubeconfig: "},
		{"--namespace=crossway-system extra", `unexpected argument "extra"`},
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

// The whole program against a hub's controllers: the agent waits for access, 200
// exports at once become imports, one slice's change is on the hub soon, and a
// restart changes nothing there. One API server is member and hub.
func TestMemberToHub(t *testing.T) {
	const exports = 200
	f := newFixture(t)
	agent := f.startAgent()
	f.waitForLog(agent, "the hub refuses this cluster's credential")
	member := &v1alpha1.MemberCluster{
		ObjectMeta: metav1.ObjectMeta{Name: "whole"},
		Spec:       v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: "us", EndpointCIDRs: []string{"10.1.0.0/16"}},
	}
	f.Must(f.admin.Create(t.Context(), member))
	letIn := []byte(fmt.Sprintf(`{"status": {"credential": {"id": %q, "clusterUID": "1", "kind": "Certificate", "issuedTime": "2026-01-01T00:00:00Z"}}}`, credentialID))
	f.Must(f.admin.Status().Patch(t.Context(), member, client.RawPatch(types.MergePatchType, letIn)))
	f.Eventually("the agent to be ready", func() bool { return agent.ready() })

	for i := range exports {
		f.service(i)
	}
	start := time.Now()
	var creating sync.WaitGroup
	for i := range exports {
		creating.Go(func() { f.export(i) })
	}
	creating.Wait()
	took := f.waitForImports(start, exports)
	slices.Sort(took)
	t.Logf("%d exports at once: imports p50 %s, max %s", exports, took[exports/2], took[exports-1])
	if took[exports-1] > 40*time.Second { // ten times the goal
		t.Errorf("imports took %s", took[exports-1])
	}
	f.Eventually("all ServiceExports to be Ready", f.allReady)

	f.measureSliceChanges()
	f.Eventually("the hub to settle", f.settled())
	f.renamePorts()
	f.Eventually("the hub to settle", f.settled())
	before := f.versions()
	agent.stop()
	agent = f.startAgent()
	f.Eventually("the restarted agent to be ready", func() bool { return agent.ready() })
	f.Eventually("the hub to settle", f.settled())
	if after := f.versions(); after != before {
		t.Errorf("the restart changed the hub:\n%s\nbefore:\n%s", after, before)
	}

	// Neither cluster's API server answers for longer than a leader has to renew its Lease. The agent goes on, ends when it
	// is asked to, and starts.
	thaw := envtestkit.Freeze(t)
	f.waitForLog(agent, "this replica no longer leads")
	time.Sleep(5 * time.Second)
	agent.stop() // says so if it has ended with an error
	agent = f.startAgent()
	time.Sleep(5 * time.Second)
	thaw()
	f.service(exports)
	f.export(exports)
	f.waitForImports(time.Now(), exports+1)
}

// fixture is one API server with a hub's controllers for member "whole".
type fixture struct {
	testkit.T
	admin client.Client
}

const (
	shop         = "whole-shop"
	credentialID = "aaaaaaaaaa"
)

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		f.Must(add(scheme))
	}
	var err error
	config := rest.CopyConfig(envtestkit.Config(t))
	f.admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	f.Must(err)
	f.Must(f.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop}}))
	f.credential()
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Cache: cache.Options{ByObject: registrationhub.CacheByObject()},
	})
	f.Must(err)
	registrar, err := registrationhub.NewRegistrar(mgr, nil)
	f.Must(err)
	f.Must(registrar.SetupWithManager(mgr, nil))
	merger, err := importhub.NewMerger(mgr, importhub.NewMerges(mgr.GetCache()), nil)
	f.Must(err)
	f.Must(merger.SetupWithManager(mgr, nil))
	projector, err := imports.NewProjector(mgr, mgr)
	f.Must(err)
	f.Must(projector.SetupWithManager(mgr, nil))
	testkit.Run(t, mgr.Start)
	return f
}

// credential writes the Secret of an agent that has joined.
func (f *fixture) credential() {
	f.Helper()
	var system corev1.Namespace
	f.Must(f.admin.Get(f.Context(), types.NamespacedName{Name: metav1.NamespaceSystem}, &system))
	config := envtestkit.As(f.TB, registration.MemberUser("whole", credentialID), v1alpha1.MembersGroup)
	c := identityagent.Credential{
		Server: config.Host, CA: config.CAData, Member: "whole", ID: credentialID, ClusterUID: string(system.UID), Certificate: config.CertData, Key: config.KeyData,
	}
	f.Must(f.admin.Create(f.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: identityagent.CredentialSecret}, Data: c.Data()}))
}

// runningAgent is an agent that runs until it is stopped.
type runningAgent struct {
	stop   func()
	health string
	log    *lockedBuffer
}

func (f *fixture) startAgent() *runningAgent {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	f.Must(err)
	r := &runningAgent{health: listener.Addr().String(), log: &lockedBuffer{}}
	f.Must(listener.Close())
	ctx, cancel := context.WithCancel(context.Background())
	agent := exec.CommandContext(ctx, os.Args[0],
		"--kubeconfig="+envtestkit.Kubeconfig(f.TB),
		"--metrics-addr=0", "--health-addr="+r.health, "--leader-elect", "--namespace="+shop)
	agent.Env = append(os.Environ(), asAgent+"=yes")
	agent.Stderr = r.log
	agent.Cancel = func() error { return agent.Process.Signal(syscall.SIGTERM) }
	agent.WaitDelay = 10 * time.Second
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f.Must(agent.Start())
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := agent.Wait(); agent.ProcessState.ExitCode() != 0 {
			f.Errorf("agent: %v\n%s", err, r.log)
		}
	})
	f.Cleanup(r.stop)
	return r
}

func (r *runningAgent) ready() bool {
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + r.health + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (f *fixture) waitForLog(r *runningAgent, text string) {
	f.Helper()
	f.Eventually("the log to say "+text, func() bool { return strings.Contains(r.log.String(), text) })
}

func (f *fixture) service(i int) {
	f.Helper()
	name := fmt.Sprint("web-", i)
	f.Must(f.admin.Create(f.Context(), &corev1.Service{
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
	f.Must(f.admin.Create(f.Context(), s))
}

func (f *fixture) export(i int) {
	err := f.admin.Create(f.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: fmt.Sprint("web-", i)}})
	if err != nil {
		f.Error(err)
	}
}

// waitForImports waits until there are n ServiceImports and returns how long after
// start each was there.
func (f *fixture) waitForImports(start time.Time, n int) []time.Duration {
	f.Helper()
	created := map[types.UID]time.Duration{}
	f.Eventually("the imports", func() bool {
		var list mcsv1beta1.ServiceImportList
		f.Must(f.admin.List(f.Context(), &list, client.InNamespace(shop)))
		for _, i := range list.Items {
			if _, ok := created[i.UID]; !ok {
				created[i.UID] = time.Since(start)
			}
		}
		return len(created) == n
	})
	var took []time.Duration
	for _, d := range created {
		took = append(took, d)
	}
	return took
}

func (f *fixture) allReady() bool {
	var list mcsv1beta1.ServiceExportList
	f.Must(f.admin.List(f.Context(), &list, client.InNamespace(shop)))
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

// measureSliceChanges changes slices one by one and measures until each is on the hub.
func (f *fixture) measureSliceChanges() {
	f.Helper()
	watcher, err := f.admin.(client.WithWatch).Watch(f.Context(), &discoveryv1.EndpointSliceList{}, client.InNamespace("member-whole"))
	f.Must(err)
	defer watcher.Stop()
	var took []time.Duration
	for i := range 30 {
		var s discoveryv1.EndpointSlice
		f.Must(f.admin.Get(f.Context(), types.NamespacedName{Namespace: shop, Name: fmt.Sprint("web-", i)}, &s))
		address := fmt.Sprintf("10.1.%d.200", i)
		s.Endpoints[0].Addresses[0] = address
		start := time.Now()
		f.Must(f.admin.Update(f.Context(), &s))
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
		f.Fatalf("%d of 30 changes arrived", len(took))
	}
	f.Logf("slice write in the member -> on the hub: p50 %s, max %s", took[15], took[29])
}

// renamePorts renames a port again and again, now in the Service first and now in its
// slice, and checks that the slice on the hub stays as it is.
func (f *fixture) renamePorts() {
	f.Helper()
	watcher, err := f.admin.(client.WithWatch).Watch(f.Context(), &discoveryv1.EndpointSliceList{}, client.InNamespace("member-whole"),
		client.MatchingLabels{v1alpha1.LabelServiceName: "web-0"}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: f.resourceVersion("web-0")}})
	f.Must(err)
	defer watcher.Stop()
	key := types.NamespacedName{Namespace: shop, Name: "web-0"}
	for i := range 20 {
		name := fmt.Sprint("http-", i)
		renames := []func(){
			func() {
				var s corev1.Service
				f.Must(f.admin.Get(f.Context(), key, &s))
				s.Spec.Ports[0].Name = name
				f.Must(f.admin.Update(f.Context(), &s))
			},
			func() {
				var s discoveryv1.EndpointSlice
				f.Must(f.admin.Get(f.Context(), key, &s))
				s.Ports[0].Name = &name
				f.Must(f.admin.Update(f.Context(), &s))
			},
		}
		renames[i%2]()
		if i%4 < 2 { // else both at once
			time.Sleep(50 * time.Millisecond)
		}
		renames[1-i%2]()
		f.Eventually("the name on the hub", func() bool {
			var e v1alpha1.MemberExport
			f.Must(f.admin.Get(f.Context(), types.NamespacedName{Namespace: "member-whole", Name: "web-0." + shop}, &e))
			return e.Spec.Ports[0].Name == name
		})
	}
	var s discoveryv1.EndpointSlice // a change that is pushed, behind all others
	f.Must(f.admin.Get(f.Context(), key, &s))
	s.Endpoints = s.Endpoints[:1]
	f.Must(f.admin.Update(f.Context(), &s))
	e := <-watcher.ResultChan()
	pushed, ok := e.Object.(*discoveryv1.EndpointSlice)
	if !ok || len(pushed.Endpoints) != 1 || len(pushed.Ports) != 1 || *pushed.Ports[0].Name != "tcp-80" {
		f.Errorf("the renames wrote a slice: %s %+v", e.Type, e.Object)
	}
}

// resourceVersion is one of the hub's slices of a service: events of a watch from there
// are later ones.
func (f *fixture) resourceVersion(service string) string {
	f.Helper()
	var list discoveryv1.EndpointSliceList
	f.Must(f.admin.List(f.Context(), &list, client.InNamespace("member-whole"), client.MatchingLabels{v1alpha1.LabelServiceName: service}))
	return list.ResourceVersion
}

// versions returns the resourceVersions of all objects that the agent writes on
// the hub, without the Lease.
func (f *fixture) versions() string {
	f.Helper()
	var b strings.Builder
	for _, list := range []client.ObjectList{&v1alpha1.MemberExportList{}, &discoveryv1.EndpointSliceList{}, &v1alpha1.FleetServiceList{}} {
		f.Must(f.admin.List(f.Context(), list, client.InNamespace("member-whole")))
		f.Must(meta.EachListItem(list, func(o runtime.Object) error {
			object := o.(client.Object)
			_, err := fmt.Fprintf(&b, "%T %s %s\n", o, object.GetName(), object.GetResourceVersion())
			return err
		}))
	}
	return b.String()
}

// settled returns a function that tells whether nothing was written since its last call.
func (f *fixture) settled() func() bool {
	var last string
	next := time.Now()
	return func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = time.Now().Add(1500 * time.Millisecond) // the hub writes the status of a service once a second
		now := f.versions()
		same := now == last
		last = now
		return same
	}
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
