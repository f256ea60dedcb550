package controlplane

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"k8s.io/client-go/tools/clientcmd"

	"crossway.dev/crossway/internal/lab/network"
	"crossway.dev/crossway/internal/lab/process"
)

func (c *Cluster) apiServerArgs() []string {
	args := []string{
		"--etcd-servers=" + c.spec.Etcd, "--etcd-prefix=/" + c.Name,
		"--bind-address=" + c.bind(), "--advertise-address=" + c.spec.Address, "--secure-port=" + strconv.Itoa(c.spec.Port),
		"--tls-cert-file=" + c.file("apiserver.crt"), "--tls-private-key-file=" + c.file("apiserver.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.file("sa.key"), "--service-account-signing-key-file=" + c.file("sa.key"),
		"--service-cluster-ip-range=" + c.spec.ServiceCIDR,
		"--authorization-mode=RBAC", "--allow-privileged",
		// The process kubelet serves logs and exec; it takes any client.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + c.file("admin.crt"), "--kubelet-client-key=" + c.file("admin.key"),
		// Nothing taints the lab's nodes, so tolerations are noise in each pod.
		"--disable-admission-plugins=DefaultTolerationSeconds,TaintNodesByCondition",
		"--shutdown-delay-duration=0s",
	}
	if c.spec.APIServerOnly { // nobody counts, and a quota without a count refuses everything
		args = append(args, "--disable-admission-plugins=ResourceQuota")
	}
	if len(c.spec.AuditPolicy) > 0 {
		args = append(args, "--audit-policy-file="+c.file("audit.yaml"),
			"--audit-log-path="+filepath.Join(c.env.LogDir, c.Name+"-audit.log"), "--audit-log-maxsize=200", "--audit-log-maxbackup=1")
	}
	return args
}

// bind is every address of a network namespace of the lab's own, and otherwise
// only the one that the lab dials: nothing listens to the machine's network.
func (c *Cluster) bind() string {
	if c.spec.Namespace > 0 {
		return "0.0.0.0"
	}
	return c.control()
}

// controllers are what workloads, Services, namespaces, RBAC and client certificates need.
// Left out are the ones that watch nodes: a node of the lab is never taken away.
var controllers = []string{
	"certificatesigningrequest-signing-controller", "clusterrole-aggregation-controller", "daemonset-controller", "deployment-controller", "disruption-controller",
	"endpointslice-controller", "garbage-collector-controller", "job-controller", "namespace-controller",
	"pod-garbage-collector-controller", "replicaset-controller", "resourcequota-controller", "root-ca-certificate-publisher-controller",
	"serviceaccount-controller", "statefulset-controller",
}

func (c *Cluster) controllerManagerArgs() []string {
	return []string{
		"--kubeconfig=" + c.Kubeconfig, "--controllers=" + strings.Join(controllers, ","),
		"--leader-elect=false", "--secure-port=0",
		"--root-ca-file=" + c.file("ca.crt"),
		"--cluster-signing-cert-file=" + c.file("ca.crt"), "--cluster-signing-key-file=" + c.file("ca.key"),
		"--kube-api-qps=2000", "--kube-api-burst=4000",
		"--concurrent-deployment-syncs=10", "--concurrent-replicaset-syncs=10", "--concurrent-service-endpoint-syncs=10",
		"--concurrent-namespace-syncs=20", "--namespace-sync-period=30s",
		// A test waits for what this would delay, and no storm comes near a lab.
		"--endpointslice-updates-batch-period=0s",
		"--min-resync-period=12h",
	}
}

// proxyConfig is what kube-proxy has no flags for, or only with a warning: fast
// updates, and conntrack limits left alone, which the lab's root may not set.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: %q
clusterCIDR: %q
clientConnection: {kubeconfig: %q, qps: 1000, burst: 2000}
nftables: {minSyncPeriod: 10ms, syncPeriod: 1m}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
`

// StartProxy starts a node's kube-proxy in the node's network namespace and
// waits until it has written its rules once.
func (c *Cluster) StartProxy(ctx context.Context, node, clusterCIDR string, ns netns.NsHandle) (*process.Process, error) {
	config, kubeconfig := c.file("kube-proxy-"+node+".yaml"), c.file("kube-proxy-"+node+".kubeconfig")
	// Over the backbone: not every node has a control link.
	server := "https://" + net.JoinHostPort(c.spec.Address, strconv.Itoa(c.spec.Port))
	if err := clientcmd.WriteToFile(c.ConfigFor(server, c.admin), kubeconfig); err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, proxyConfig, node, clusterCIDR, kubeconfig), 0o644); err != nil {
		return nil, err
	}
	p, err := c.env.Group.Start(process.Spec{
		Args:      []string{c.env.Programs.Path("kube-proxy"), "--config=" + config},
		Log:       filepath.Join(c.env.LogDir, fmt.Sprintf("%s-kube-proxy-%s.log", c.Name, node)),
		Namespace: ns,
	})
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, proto, address string) (net.Conn, error) {
		return network.Dial(ctx, ns, proto, address)
	}}}
	return p, await(ctx, p, func(ctx context.Context) error { return get(ctx, client, "http://127.0.0.1:10256/healthz") })
}
