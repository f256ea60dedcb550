package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// cluster is one of two API servers: the hub's, and that of a cluster that joins. A
// person's kubeconfig has both, as contexts hub (the current one) and us-west.
type cluster struct {
	client.Client
	t          *testing.T
	context    string
	kubeconfig string
	said       string // what the last command said on standard error
}

func newHub(t *testing.T) *cluster {
	t.Helper()
	return newCluster(t, "hub", envtestkit.Config(t), map[string]*rest.Config{"hub": envtestkit.Config(t)})
}

// newFleet returns the hub's API server and that of us-west.
func newFleet(t *testing.T) (hub, member *cluster) {
	t.Helper()
	contexts := map[string]*rest.Config{"hub": envtestkit.Config(t), "us-west": envtestkit.Other(t)}
	return newCluster(t, "hub", contexts["hub"], contexts), newCluster(t, "us-west", contexts["us-west"], contexts)
}

func newCluster(t *testing.T, context string, config *rest.Config, contexts map[string]*rest.Config) *cluster {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: newApp(genericiooptions.IOStreams{ErrOut: &bytes.Buffer{}}).scheme})
	testkit.Must(t, err)
	return &cluster{Client: c, t: t, context: context, kubeconfig: writeKubeconfig(t, contexts)}
}

// writeKubeconfig writes a kubeconfig whose current context is hub.
func writeKubeconfig(t *testing.T, contexts map[string]*rest.Config) string {
	t.Helper()
	config := api.NewConfig()
	config.CurrentContext = "hub"
	for name, c := range contexts {
		config.Clusters[name] = &api.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
		config.AuthInfos[name] = &api.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
		config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	testkit.Must(t, clientcmd.WriteToFile(*config, path))
	return path
}

func (c *cluster) create(o client.Object) {
	c.t.Helper()
	testkit.Must(c.t, c.Create(c.t.Context(), o))
	c.t.Cleanup(func() { _ = c.Delete(context.Background(), o) })
}

// crossway runs the command line as a person would.
func (c *cluster) crossway(args ...string) (stdout string, err error) {
	c.t.Helper()
	var out, errOut bytes.Buffer
	args = append(args, "--kubeconfig", c.kubeconfig, "--context", c.context)
	err = run(c.t.Context(), args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
	c.said = errOut.String()
	return out.String(), err
}

// uninstalls removes a release when the test ends.
func (c *cluster) uninstalls(release string) {
	c.t.Cleanup(func() {
		flags := clusterFlags(&bytes.Buffer{})
		*flags.KubeConfig, *flags.Context = c.kubeconfig, c.context
		if _, err := uninstallRelease(flags, release); err != nil {
			c.t.Error(err)
		}
	})
}

// want runs a command that succeeds and prints these texts, in this order.
func (c *cluster) want(args string, texts ...string) string {
	c.t.Helper()
	out, err := c.crossway(strings.Fields(args)...)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s%s", args, err, c.said, out)
	}
	rest := out
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			c.t.Fatalf("%s: no %q in\n%s", args, text, out)
		}
		rest = after
	}
	return out
}

// refused runs a command that fails with this text and exit code.
func (c *cluster) refused(code int, args, want string) {
	c.t.Helper()
	out, err := c.crossway(strings.Fields(args)...)
	if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != code {
		c.t.Errorf("%s:\n got exit code %d, %v\n%s want %d, %s", args, exitCode(err), err, out, code, want)
	}
}

func (c *cluster) wantError(want string, args ...string) {
	c.t.Helper()
	if out, err := c.crossway(args...); err == nil || !strings.Contains(err.Error(), want) {
		c.t.Errorf("%s:\n got %q, %v\n want %s", strings.Join(args, " "), out, err, want)
	}
}

// lets allows a group to ask for certificates, as charts/hub does.
func (c *cluster) lets(group string) {
	c.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "asks"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}}}})
	c.create(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "asks"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "asks"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: group}}})
}

// open waits for a request that nobody has decided.
func (c *cluster) open() *certificatesv1.CertificateSigningRequest {
	var found certificatesv1.CertificateSigningRequest
	testkit.Eventually(c.t, "a request", func() bool {
		var all certificatesv1.CertificateSigningRequestList
		testkit.Must(c.t, c.List(c.t.Context(), &all))
		for _, csr := range all.Items {
			if len(csr.Status.Conditions) == 0 && strings.HasPrefix(csr.Name, "crossway-edge-") {
				found = csr
				return true
			}
		}
		return false
	})
	c.t.Cleanup(func() { _ = c.Delete(context.Background(), &found) })
	return &found
}

// decide writes a decision. The command may see it, and the test end, before the answer to that is here.
func (c *cluster) decide(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason, message string) {
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message}}
	testkit.Must(c.t, c.SubResource("approval").Update(context.Background(), csr))
}

// signs approves and signs the next request of edges, as the hub's leader does.
func (c *cluster) signs(ca registration.Pair, id registration.EdgeIdentity) {
	csr := c.open()
	c.decide(csr, certificatesv1.CertificateApproved, "Joined", "yes")
	chain, err := registration.SignEdgeRequest(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, id, csr.Spec.Request, time.Hour)
	testkit.Must(c.t, err)
	csr.Status.Certificate = append(chain, ca.Certificate...)
	testkit.Must(c.t, c.Status().Update(context.Background(), csr))
}

func (c *cluster) denies(reason, message string) {
	c.decide(c.open(), certificatesv1.CertificateDenied, reason, message)
}

// complete runs the command line without flags of its own after the words.
func (c *cluster) complete(args []string) (stdout string, err error) {
	var out, errOut bytes.Buffer
	err = run(c.t.Context(), args, genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut})
	return out.String(), err
}
