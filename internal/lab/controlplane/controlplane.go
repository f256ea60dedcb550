package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/process"
)

// Env is what every program is started with.
type Env struct {
	Programs install.Programs
	Group    *process.Group
	Dir      string // data and certificates, a directory per cluster
	LogDir   string // one file per program
}

// Spec describes one cluster.
type Spec struct {
	Name string
	Etcd string // URL
	// Address is where the API server listens and what it says its address is
	// (the Service "kubernetes" points there); Control is the address that
	// REST dials where that differs.
	Address, Control string
	Port             int
	// ServiceCIDR is the range of ClusterIPs; two, with a comma between them, for
	// both IP families.
	ServiceCIDR string
	Namespace   netns.NsHandle // network namespace; 0: the caller's
	// AuditPolicy, where set, is an audit policy (YAML); the log is then
	// written to <LogDir>/<Name>-audit.log.
	AuditPolicy []byte
	// APIServerOnly leaves kube-controller-manager out.
	APIServerOnly bool
}

// Cluster is a running control plane.
type Cluster struct {
	Name string
	CA   *CA
	// REST is the administrator's configuration (group system:masters), with
	// no client-side rate limit.
	REST *rest.Config
	// Kubeconfig is a file with the same configuration.
	Kubeconfig string

	APIServer, ControllerManager *process.Process

	spec  Spec
	env   Env
	admin KeyPair
}

// StartEtcd starts etcd on a loopback or control address and returns its URL.
// It keeps its data without fsync: nothing of a lab outlives the machine.
func StartEtcd(ctx context.Context, env Env, address string, clientPort, peerPort int) (string, error) {
	client := "http://" + net.JoinHostPort(address, strconv.Itoa(clientPort))
	peer := "http://" + net.JoinHostPort(address, strconv.Itoa(peerPort))
	p, err := env.Group.Start(process.Spec{
		Log: filepath.Join(env.LogDir, "etcd.log"),
		Args: []string{env.Programs.Path("etcd"), "--data-dir", filepath.Join(env.Dir, "etcd"), "--unsafe-no-fsync",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
			"--quota-backend-bytes", strconv.Itoa(8 << 30), "--auto-compaction-retention", "5m", "--log-level", "warn"},
	})
	if err != nil {
		return "", err
	}
	return client, await(ctx, p, func(ctx context.Context) error { return get(ctx, http.DefaultClient, client+"/health") })
}

// Start starts a cluster's API server and controller manager and waits until
// the API server is ready.
func Start(ctx context.Context, env Env, spec Spec) (*Cluster, error) {
	c := &Cluster{Name: spec.Name, spec: spec, env: env}
	if err := c.certify(); err != nil {
		return nil, fmt.Errorf("certificates of %s: %w", spec.Name, err)
	}
	var err error
	if c.APIServer, err = c.start("kube-apiserver", c.apiServerArgs()); err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(c.REST)
	if err != nil {
		return nil, err
	}
	if err := await(ctx, c.APIServer, func(ctx context.Context) error { return get(ctx, client, c.REST.Host+"/readyz") }); err != nil {
		return nil, err
	}
	if !spec.APIServerOnly { // it would wait for the API server, but only 10 s
		c.ControllerManager, err = c.start("kube-controller-manager", c.controllerManagerArgs())
	}
	return c, err
}

// Freeze stops the API server's process: it accepts connections and answers nothing,
// until Thaw lets it go on where it was.
func (c *Cluster) Freeze() { c.APIServer.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (c *Cluster) Thaw() { c.APIServer.Signal(syscall.SIGCONT) }

func (c *Cluster) start(program string, args []string) (*process.Process, error) {
	return c.env.Group.Start(process.Spec{
		Args:      append([]string{c.env.Programs.Path(program)}, args...),
		Log:       filepath.Join(c.env.LogDir, c.Name+"-"+program+".log"),
		Namespace: c.spec.Namespace,
	})
}

func (c *Cluster) dir() string { return filepath.Join(c.env.Dir, c.Name) }

func (c *Cluster) file(name string) string { return filepath.Join(c.dir(), name) }

// certify makes the authority, the certificates and the kubeconfig.
func (c *Cluster) certify() (err error) {
	if err := os.MkdirAll(c.dir(), 0o755); err != nil {
		return err
	}
	if c.CA, err = NewCA(c.Name); err != nil {
		return err
	}
	serviceIP, err := firstAddress(c.spec.ServiceCIDR)
	if err != nil {
		return err
	}
	server, err := c.CA.Server("kube-apiserver", c.spec.Address, c.control(), "127.0.0.1", serviceIP, "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	if c.admin, err = c.CA.Client("lab-admin", "system:masters"); err != nil {
		return err
	}
	c.REST = &rest.Config{
		Host:            "https://" + net.JoinHostPort(c.control(), strconv.Itoa(c.spec.Port)),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.CA.PEM, CertData: c.admin.Cert, KeyData: c.admin.Key},
		QPS:             -1,
	}
	c.Kubeconfig = c.file("kubeconfig")
	return errors.Join(
		c.CA.write(c.file("ca")),
		server.write(c.file("apiserver")), c.admin.write(c.file("admin")),
		writeServiceAccountKey(c.file("sa.key")),
		os.WriteFile(c.file("audit.yaml"), c.spec.AuditPolicy, 0o644),
		clientcmd.WriteToFile(c.ConfigFor(c.REST.Host, c.admin), c.Kubeconfig))
}

func (c *Cluster) control() string {
	if c.spec.Control != "" {
		return c.spec.Control
	}
	return c.spec.Address
}

// Admin is the administrator's client certificate.
func (c *Cluster) Admin() KeyPair { return c.admin }

// ConfigFor is a kubeconfig with one context, named after the cluster, for a
// client certificate and the API server under the given URL.
func (c *Cluster) ConfigFor(server string, client KeyPair) api.Config {
	return api.Config{
		Clusters:       map[string]*api.Cluster{c.Name: {Server: server, CertificateAuthorityData: c.CA.PEM}},
		AuthInfos:      map[string]*api.AuthInfo{c.Name: {ClientCertificateData: client.Cert, ClientKeyData: client.Key}},
		Contexts:       map[string]*api.Context{c.Name: {Cluster: c.Name, AuthInfo: c.Name}},
		CurrentContext: c.Name,
	}
}

// RESTFor is REST with another client certificate.
func (c *Cluster) RESTFor(client KeyPair) *rest.Config {
	cfg := rest.CopyConfig(c.REST)
	cfg.CertData, cfg.KeyData = client.Cert, client.Key
	return cfg
}

// firstAddress is that of the first range.
func firstAddress(cidr string) (string, error) {
	cidr, _, _ = strings.Cut(cidr, ",")
	ip, _, err := net.ParseCIDR(cidr)
	if err != nil {
		return "", err
	}
	ip = ip.To4()
	ip[3]++
	return ip.String(), nil
}

// await polls until ready says nil, the process ends or ctx does.
func await(ctx context.Context, p *process.Process, ready func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := ready(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.Err()
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, res.Status)
	}
	return nil
}
