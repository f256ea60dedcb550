package main

import (
	"context"
	"crypto/x509"
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
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
	"crossway.dev/crossway/pkg/membership/identity"
	"crossway.dev/crossway/pkg/registration"
	identityagent "crossway.dev/crossway/pkg/registration/agent"
)

// gossiping makes a member that has joined.
func (f *fixture) gossiping(name, cidr string) {
	f.t.Helper()
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us",
		Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"shop"}}, EndpointCIDRs: []string{cidr}}}
	f.make(m)
	f.t.Cleanup(func() { _ = f.Delete(context.WithoutCancel(f.t.Context()), m) })
	testkit.Joined(f.t, f, name)
}

// renewLease renews a member's Lease, as its agent does.
func (f *fixture) renewLease(name string) {
	f.t.Helper()
	key := client.ObjectKey{Namespace: v1alpha1.MemberNamespace(name), Name: v1alpha1.AgentLease}
	testkit.EventuallySeen(f.t, "the Lease of "+name, func() (bool, any) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		if err := client.IgnoreNotFound(f.Get(f.t.Context(), key, lease)); err != nil {
			return false, err
		}
		lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
		if lease.ResourceVersion == "" {
			return false, f.Create(f.t.Context(), lease) // the second time counts: the hub then sees it change
		}
		err := f.Update(f.t.Context(), lease)
		return err == nil, err
	})
}

// toAPI sends requests to the host of the member API.
type toAPI struct {
	host string
	via  http.RoundTripper
}

func (a toAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = a.host, ""
	return a.via.RoundTrip(r)
}

// talker is a member's agent as far as gossip goes, with a certificate from the hub. All of its connections go by machine.
type talker struct {
	own *identity.Agent
	machine
	// dialled has each connection to the hub that was opened.
	dialled chan net.Conn
}

// machine is the network of one agent, which may die.
type machine struct {
	mu       sync.Mutex
	dead     bool
	open     []io.Closer
	listener net.Listener
}

// keep notes a connection; false: the machine is dead.
func (m *machine) keep(c io.Closer) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		_ = c.Close()
		return false
	}
	m.open = append(m.open, c)
	return true
}

// die closes everything, and lets nothing begin.
func (m *machine) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	_ = m.listener.Close()
	for _, c := range m.open {
		_ = c.Close()
	}
}

// forward carries connections to an address until the machine dies.
func (m *machine) forward(to string) {
	for {
		in, err := m.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil || !m.keep(in) || !m.keep(out) {
			_ = in.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(way[1], way[0])
				_ = way[1].Close()
			}()
		}
	}
}

func (f *fixture) talk(name string) *talker {
	f.t.Helper()
	api := f.memberAPI(name)
	via, err := rest.TransportFor(api)
	testkit.Must(f.t, err)
	tk := &talker{own: identity.New(identity.Config{API: toAPI{strings.TrimPrefix(api.Host, "https://"), via}, Log: logr.Discard()}), dialled: make(chan net.Conn, 1000)}
	tk.listener, err = net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(f.t, err)
	address := freeAddress(f.t)
	go tk.forward(address)
	node, err := gossip.New(gossip.Config{Name: membership.Member(fleet.ClusterName(name)), Fleet: "crossway", TLS: tk.own, Listen: address, Advertise: tk.listener.Addr().String(),
		Hub: func() []string { return []string{f.gossip} }, Log: logr.Discard(),
		Authorize: func(_ membership.Name, c *x509.Certificate) error { return tk.own.Check(c) },
		Dial: func(ctx context.Context, network, to string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, to)
			if err != nil {
				return nil, err
			}
			if !tk.keep(conn) {
				return nil, net.ErrClosed
			}
			if to == f.gossip {
				tk.dialled <- conn
			}
			return conn, nil
		}})
	testkit.Must(f.t, err)
	testkit.Run(f.t, tk.own.Start)
	testkit.Run(f.t, node.Start)
	return tk
}

// exportOf makes a member's export of shop/<service> with one endpoint.
func (f *fixture) exportOf(member, service, address string) {
	f.t.Helper()
	namespace := v1alpha1.MemberNamespace(member)
	f.make(&v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + ".shop"}, Spec: v1alpha1.MemberExportSpec{
		Service: v1alpha1.ServiceReference{Namespace: "shop", Name: service}, ExportedAt: metav1.Now(),
		ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
		Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}},
		&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + "-abc", Labels: map[string]string{
				v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop", v1alpha1.LabelSourceCluster: member}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(fleet.PortID("TCP", 80)), Port: ptr.To(int32(80)), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		})
}

// reachable is condition Reachable of a member, as one line.
func (f *fixture) reachable(name string) string {
	var m v1alpha1.MemberCluster
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Name: name}, &m))
	c := meta.FindStatusCondition(m.Status.Conditions, "Reachable")
	if c == nil {
		return ""
	}
	return string(c.Status) + " " + c.Reason + ": " + c.Message
}

func (f *fixture) wantReachable(name string, words ...string) {
	f.t.Helper()
	testkit.EventuallySeen(f.t, fmt.Sprintf("%s is %q", name, words), func() (bool, any) {
		is := f.reachable(name)
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(is, w) }), is
	})
}

// Agents gossip with certificates from the hub. One that dies is known by the hub's word and another's, long before its
// Lease has run out, and loses nothing: its export, its slice and what others import of it stay as they are, byte by byte.
// An agent whose credential was revoked is cut off within 5 s, and does not come back.
func TestGossip(t *testing.T) {
	t.Setenv("POD_IP", "127.0.0.1")
	f := newFixture(t)
	f.gossiping("us-dies", "10.88.0.0/16")
	f.gossiping("eu-talks", "10.89.0.0/16")
	f.gossiping("us-talks", "10.90.0.0/16")
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	testkit.Eventually(t, "the member's namespace", func() bool {
		return f.Get(t.Context(), client.ObjectKey{Name: "member-us-dies"}, &corev1.Namespace{}) == nil
	})
	f.exportOf("us-dies", "gossiped", "10.88.0.1")
	talkers := map[string]*talker{}
	for _, name := range []string{"us-dies", "eu-talks", "us-talks"} {
		talkers[name] = f.talk(name)
		f.renewLease(name)
	}
	for name := range talkers {
		f.wantReachable(name, "True Gossip")
	}
	imported := f.reader("eu-talks")
	seen := func() string {
		var imports mcsv1beta1.ServiceImportList
		var slices discoveryv1.EndpointSliceList
		testkit.Must(t, imported.List(t.Context(), &imports))
		testkit.Must(t, imported.List(t.Context(), &slices))
		var export v1alpha1.MemberExport
		testkit.Must(t, f.Get(t.Context(), client.ObjectKey{Namespace: "member-us-dies", Name: "gossiped.shop"}, &export))
		text := fmt.Sprint("export ", export.Spec, testkit.Conditions(export.Status.Conditions))
		for _, i := range imports.Items {
			if i.Name != "gossiped" {
				continue // of another test
			}
			text += fmt.Sprint("\nimport ", i.Name, " ", i.Spec, i.Status.Clusters, " ", i.ResourceVersion)
		}
		for _, s := range slices.Items {
			if s.Labels[mcsv1beta1.LabelServiceName] != "gossiped" {
				continue
			}
			text += fmt.Sprint("\nslice ", s.Name, " ", s.ResourceVersion)
			for _, e := range s.Endpoints {
				text += fmt.Sprint(" ", e.Addresses)
			}
		}
		return text
	}
	var before string
	testkit.EventuallySeen(t, "the export is imported and settled", func() (bool, any) {
		last := before
		before = seen()
		return before == last && strings.Contains(before, "10.88.0.1") && strings.Contains(before, "import gossiped") && strings.Contains(before, "Ready=True"), before
	})
	// who was never reached by anybody has no second opinions: let the others get to know it
	time.Sleep(5 * time.Second)
	for name := range talkers {
		f.renewLease(name)
	}

	// it dies as a machine does: nothing says that it leaves, and its port refuses
	died := time.Now()
	talkers["us-dies"].die()
	f.wantReachable("us-dies", "False Gossip", "not heard of since", "neither the hub nor", "its Lease was renewed last at", "keeps its exports")
	t.Logf("known %s after the death: %s", time.Since(died).Round(100*time.Millisecond), f.reachable("us-dies"))
	if time.Since(died) > v1alpha1.AgentLeaseDuration/2 {
		t.Errorf("the death was known after %s", time.Since(died))
	}
	f.wantReachable("eu-talks", "True Gossip")
	if after := seen(); after != before {
		t.Errorf("the silence of an agent moved something:\n%s\nbefore:\n%s", after, before)
	}

	var m v1alpha1.MemberCluster
	testkit.Must(t, f.Get(t.Context(), client.ObjectKey{Name: "us-talks"}, &m))
	m.Spec.RevokedCredentials = []string{testkit.CredentialID}
	talking := talkers["us-talks"]
	for len(talking.dialled) > 0 {
		<-talking.dialled
	}
	testkit.Must(t, f.Update(t.Context(), &m))
	revoked := time.Now()
	<-talking.dialled // the connection was cut, and is opened again
	t.Logf("the connection was cut %s after the credential was revoked", time.Since(revoked).Round(10*time.Millisecond))
	if time.Since(revoked) > 10*time.Second { // twice what is promised: this machine may be busy
		t.Error("too late")
	}
	own, err := talking.own.Certificate()
	testkit.Must(t, err)
	testkit.Eventually(t, "other agents do not let it in, either", func() bool { return talkers["eu-talks"].own.Check(own.Leaf) != nil })
}

// The program of an agent gossips by itself: it finds the hub by its ConfigMap, and gets a certificate with its credential.
func TestAgentGossips(t *testing.T) {
	f := newFixture(t)
	f.gossiping("us-real", "10.91.0.0/16")
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	stop := f.startRealAgent("us-real")
	f.wantReachable("us-real", "True Gossip")
	stop()
	f.wantReachable("us-real", "Lease") // it said that it stops
}

// startRealAgent runs the agent's program, built for this test, as the agent of a member that has joined.
func (f *fixture) startRealAgent(member string) (stop func()) {
	f.t.Helper()
	binary := filepath.Join(f.t.TempDir(), "agent")
	if out, err := exec.Command("go", "build", "-o", binary, "../member-agent").CombinedOutput(); err != nil {
		f.t.Fatalf("go build: %v\n%s", err, out)
	}
	namespace := "agent-of-" + member
	var system corev1.Namespace
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Name: metav1.NamespaceSystem}, &system))
	own := envtestkit.As(f.t, registration.MemberUser(fleet.ClusterName(member), testkit.CredentialID), v1alpha1.MembersGroup)
	c := identityagent.Credential{Server: own.Host, CA: own.CAData, Member: fleet.ClusterName(member), ID: testkit.CredentialID,
		ClusterUID: string(system.UID), Certificate: own.CertData, Key: own.KeyData}
	f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: identityagent.CredentialSecret}, Data: c.Data()})
	log, err := os.CreateTemp(f.t.TempDir(), "agent-*.log")
	testkit.Must(f.t, err)
	agent := exec.Command(binary, "--kubeconfig="+envtestkit.Kubeconfig(f.t), "--metrics-addr=0", "--health-addr=0", "--leader-elect",
		"--namespace="+namespace, "--gossip-addr="+freeAddress(f.t))
	agent.Stdout, agent.Stderr = log, log
	testkit.Must(f.t, agent.Start())
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = agent.Process.Signal(os.Interrupt)
			_ = agent.Wait()
		}
	}
	f.t.Cleanup(func() {
		stop()
		if text, err := os.ReadFile(log.Name()); err == nil && f.t.Failed() {
			f.t.Logf("the agent's log:\n%s", text)
		}
	})
	return stop
}
