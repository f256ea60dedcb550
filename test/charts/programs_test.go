package charts

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	identity "crossway.dev/crossway/pkg/registration/agent"
)

// program is one of Crossway's, running with the arguments that its chart renders.
type program struct {
	t         *testing.T
	cmd       *exec.Cmd
	addresses map[string]string // by the address in the chart
	mu        sync.Mutex
	log       bytes.Buffer // guarded by mu
}

func (p *program) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(line)
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// launch builds a program and starts it as the chart's only container would,
// with the pod's files and ports replaced by the test's.
func launch(t *testing.T, chart, values, pkg string, files map[string]string, more ...string) *program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var d appsv1.Deployment
	for _, o := range objects(t, render(t, chart, values)) {
		if o.GetKind() == "Deployment" {
			into(t, o, &d)
		}
	}
	p := &program{t: t, addresses: map[string]string{}}
	replace := []string{"$(POD_NAMESPACE)", d.Namespace}
	for _, port := range d.Spec.Template.Spec.Containers[0].Ports {
		rendered := fmt.Sprintf("-addr=:%d", port.ContainerPort)
		p.addresses[port.Name] = freeAddress(t)
		replace = append(replace, rendered, "-addr="+p.addresses[port.Name])
	}
	for from, to := range files {
		replace = append(replace, from, to)
	}
	var args []string
	for _, a := range d.Spec.Template.Spec.Containers[0].Args {
		args = append(args, strings.NewReplacer(replace...).Replace(a))
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), binary, append(args, more...)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	testkit.Must(t, p.cmd.Start())
	t.Cleanup(p.stop)
	return p
}

// stop ends the program as a kubelet does, and reads its output meanwhile.
func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%s ended with %v", filepath.Base(p.cmd.Path), err)
	}
	for line := range strings.Lines(p.output()) {
		if strings.Contains(strings.ToLower(line), "forbidden") {
			p.t.Errorf("%s lacks a right: %s", filepath.Base(p.cmd.Path), line)
		}
	}
	if p.t.Failed() {
		p.t.Log(p.output())
	}
}

func (p *program) ready() bool {
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.addresses["health"]+"/readyz", nil)
	testkit.Must(p.t, err)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// kubeconfigOf writes a client's configuration to a file.
func kubeconfigOf(t *testing.T, c *rest.Config) string {
	t.Helper()
	config := api.Config{
		Clusters:       map[string]*api.Cluster{"c": {Server: c.Host, CertificateAuthorityData: c.CAData, CertificateAuthority: c.CAFile}},
		AuthInfos:      map[string]*api.AuthInfo{"u": {ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}},
		Contexts:       map[string]*api.Context{"x": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "x",
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	testkit.Must(t, clientcmd.WriteToFile(config, file))
	return file
}

// asked runs kubectl until its output is not empty.
func asked(t *testing.T, args ...string) (answer string) {
	t.Helper()
	testkit.Eventually(t, "kubectl "+strings.Join(args, " "), func() bool {
		out, err := kubectl(t, "", args...)
		answer = out
		return err == nil && strings.TrimSpace(out) != ""
	})
	return answer
}

// Hub and agent run with the arguments, ServiceAccounts and Roles of their
// charts and nothing more: an export becomes an import, an edge of
// charts/edge with a certificate of the hub's CA gets its configuration, and no
// request is forbidden. (One API server stands for both clusters.)
func TestProgramsRunAsTheirChartsSay(t *testing.T) {
	const values = "secretNamespaces={default}" // the fewest rights
	apply(t, systemNamespace+"---\n"+render(t, "hub", values)+"---\n"+render(t, "member-agent", ""))
	apply(t, manifest("MemberCluster", "us-west", "{accepted: true, region: us, endpointCIDRs: [10.1.0.0/16], exports: {namespaces: [shop]}}"))

	hub := launch(t, "hub", values, "./cmd/hub", nil, "--kubeconfig", kubeconfigOf(t, envtestkit.As(t, account+"crossway-hub")))
	testkit.Eventually(t, "the hub is ready", hub.ready)
	joined(t, "us-west")
	asked(t, "get", "rolebinding", "crossway-member", "--namespace", "member-us-west", "-o", "name")
	agent := launch(t, "member-agent", "", "./cmd/member-agent", nil, "--kubeconfig", kubeconfigOf(t, envtestkit.As(t, account+"crossway-member-agent")))
	testkit.Eventually(t, "the agent is ready", agent.ready)

	export, err := os.ReadFile(filepath.Join(root, "examples/member/export.yaml"))
	testkit.Must(t, err)
	apply(t, string(export))
	asked(t, "get", "fleetservice", "store-blue.shop", "--namespace", "crossway-fleet", "-o", "name")
	asked(t, "get", "serviceimport", "store-blue", "--namespace", "shop", "-o", "name")
	asked(t, "get", "serviceexport", "store-blue", "--namespace", "shop", "-o", "jsonpath={.status.conditions}")
	asked(t, "get", "membercluster", "us-west", "-o", "jsonpath={.status.conditions[?(@.type==\"Reachable\")].status}")

	ca := asked(t, "get", "secret", registration.EdgeCASecret, "--namespace", "crossway-system", "-o", `jsonpath={.data.tls\.crt} {.data.tls\.key}`)
	apply(t, manifest("EdgePool", "us", usPool))
	envoy := edgeOf(t, ca, hub.addresses["xds"])
	testkit.Eventually(t, "an edge of pool us is ready", func() bool { return envoy.command(t.Context(), "ready").Run() == nil })
	testkit.Eventually(t, "pool us has an edge", func() bool {
		out, err := kubectl(t, "", "get", "edgepool", "us", "-o", "jsonpath={.status.edges}")
		return err == nil && out == "1"
	})
}

// joined fills the Secret of an agent as joining does.
func joined(t *testing.T, name fleet.ClusterName) {
	t.Helper()
	admin, err := client.New(envtestkit.Config(t), client.Options{})
	testkit.Must(t, err)
	var system corev1.Namespace
	testkit.Must(t, admin.Get(t.Context(), client.ObjectKey{Name: "kube-system"}, &system))
	var secret corev1.Secret
	testkit.Must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: "crossway-system", Name: identity.CredentialSecret}, &secret))
	const id = "aaaaaaaaaa"
	user := envtestkit.As(t, registration.MemberUser(name, id), v1alpha1.MembersGroup)
	c := identity.Credential{
		Server: user.Host, CA: user.CAData, Member: name, ID: id, ClusterUID: string(system.UID), Certificate: user.CertData, Key: user.KeyData,
	}
	secret.Data = c.Data()
	testkit.Must(t, admin.Update(t.Context(), &secret))
	if out, err := kubectl(t, "", "patch", "membercluster", string(name), "--subresource=status", "--type=merge",
		"--patch", `{"status": {"credential": {"id": "`+id+`", "clusterUID": "1", "kind": "Certificate", "issuedTime": "2026-01-01T00:00:00Z"}}}`); err != nil {
		t.Fatal(err, out)
	}
}

// edgeOf starts an Envoy of charts/edge with a certificate for EdgePool us of the
// hub's CA, given as the CA's certificate and key in base64, a space between.
func edgeOf(t *testing.T, ca, hub string) edge {
	t.Helper()
	host, port, err := net.SplitHostPort(hub)
	testkit.Must(t, err)
	e := newEdge(t, "metrics.enabled=false,hub.address="+host+",hub.port="+port)
	certificate, key, _ := strings.Cut(ca, " ")
	for text, into := range map[string]*[]byte{certificate: &e.ca.CA.Certificate, key: &e.ca.CA.Key} {
		if *into, err = base64.StdEncoding.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	e.pool = asked(t, "get", "edgepool", "us", "-o", "jsonpath={.metadata.uid}")
	e.mountCertificate("us-b")
	e.start(e.bootstrap(), "--service-node", "a", "--service-cluster", "us")
	return e
}
