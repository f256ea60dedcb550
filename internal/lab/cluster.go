package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"

	"crossway.dev/crossway/internal/lab/controlplane"
	"crossway.dev/crossway/internal/lab/kubelet"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/lab/network"
)

// Cluster is one running cluster of the lab.
type Cluster struct {
	Name, Region, Zone string // no region and zone: the hub
	// Server is the API server's URL on the backbone, as other clusters reach
	// it (and as a Cut takes it from them).
	Server string
	// REST is the administrator's configuration, over the control link: it
	// works also while the cluster is cut off.
	REST *rest.Config
	// Client is a client of REST.
	Client kubernetes.Interface
	// Kubeconfig is a file with the same configuration.
	Kubeconfig           string
	PodCIDR, ServiceCIDR string
	// DNS is the ClusterIP of the cluster's name server, which InstallDNS installs.
	DNS string
	// NodeAddress is the address of the cluster's first node on the backbone.
	NodeAddress string

	plane    *controlplane.Cluster
	kubelets []*kubelet.Kubelet
	kubectl  string
}

const apiPort = 6443

func (l *Lab) startCluster(ctx, life context.Context, env controlplane.Env, p clusterPlan, etcd string) (*Cluster, error) {
	node := l.network.Nodes[p.nodes[0].name]
	plane, err := controlplane.Start(ctx, env, controlplane.Spec{
		Name: p.name, Etcd: etcd, Address: node.Address.String(), Control: node.Control.String(), Port: apiPort,
		ServiceCIDR: p.services.String() + "," + network.Twin(p.services).String(), Namespace: node.NS, AuditPolicy: p.audit,
	})
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Name: p.name, Region: p.region, Zone: p.zone, Server: fmt.Sprintf("https://%s:%d", node.Address, apiPort),
		REST: plane.REST, Kubeconfig: plane.Kubeconfig, PodCIDR: p.pods.String(), ServiceCIDR: p.services.String(), NodeAddress: node.Address.String(),
		DNS: serviceAddress(p.services, 10), plane: plane, kubectl: l.Programs.Path("kubectl"),
	}
	if c.Client, err = kubernetes.NewForConfig(c.REST); err != nil {
		return nil, err
	}
	return c, l.startNodes(ctx, life, c, p)
}

// startNodes starts the cluster's scheduler, and for each node its kubelet and
// kube-proxy, and returns when all nodes are registered.
func (l *Lab) startNodes(ctx, life context.Context, c *Cluster, p clusterPlan) error {
	log, err := l.logger(c.Name + "-kubelet.log")
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	factory := informers.NewSharedInformerFactory(c.Client, 0)
	var nodes []*v1.Node
	for _, n := range p.nodes {
		k, err := l.newKubelet(c, n, factory, log)
		if err != nil {
			return err
		}
		nodes = append(nodes, k.Node())
		c.kubelets = append(c.kubelets, k)
	}
	scheduler, err := kubelet.NewScheduler(c.Client, factory, nodes, log)
	if err != nil {
		return err
	}
	factory.Start(life.Done())
	l.kubelets.Go(func() { scheduler.Run(life) })
	for _, k := range c.kubelets {
		l.kubelets.Go(func() {
			if err := k.Run(life); err != nil {
				log.Error("kubelet", "node", k.Name, "error", err)
				fail(err)
			}
		})
	}
	factory.WaitForCacheSync(ctx.Done())
	if err := c.awaitNodes(ctx, len(nodes)); err != nil {
		return err
	}
	for _, k := range c.kubelets { // it wants to see its Node
		if _, err := c.plane.StartProxy(ctx, k.Name, c.PodCIDR, l.network.Nodes[k.Name].NS); err != nil {
			return fmt.Errorf("kube-proxy of node %s: %w", k.Name, err)
		}
	}
	return nil
}

func (l *Lab) newKubelet(c *Cluster, n nodePlan, factory informers.SharedInformerFactory, log *slog.Logger) (*kubelet.Kubelet, error) {
	node := l.network.Nodes[n.name]
	pair, err := c.plane.CA.Server("kubelet", node.Address.String(), n.name)
	if err != nil {
		return nil, err
	}
	certificate, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	return kubelet.New(kubelet.Config{
		Name: n.name, Labels: n.labels, Network: node, Client: c.Client, Informers: factory, Images: l.images,
		Dir: filepath.Join(stateDir, "crossway-lab/pods", n.name), LogDir: l.LogDir,
		APIServerHost: serviceAddress(netip.MustParsePrefix(c.ServiceCIDR), 1), APIServerPort: "443", DNS: c.DNS, Certificate: certificate, Log: log,
	})
}

// serviceAddress is the n-th ClusterIP of a range.
func serviceAddress(services netip.Prefix, n byte) string {
	address := services.Addr().As4()
	address[3] = n
	return netip.AddrFrom4(address).String()
}

func (l *Lab) logger(name string) (*slog.Logger, error) {
	f, err := os.OpenFile(filepath.Join(l.LogDir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(f, nil)), nil // open as long as the lab is
}

func (c *Cluster) awaitNodes(ctx context.Context, count int) error {
	for {
		ready := 0
		nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err == nil {
			for _, n := range nodes.Items {
				if len(n.Status.Conditions) > 0 {
					ready++
				}
			}
		}
		if ready == count {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Apply applies manifests (YAML, any kinds, several documents) by server-side
// apply, as the administrator; field manager "lab", conflicts forced. CRDs are
// waited for. Objects stay where a later Apply leaves them out.
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
	_, err := c.Kubectl(ctx, manifests, "apply", "--server-side", "--force-conflicts", "--field-manager=lab", "-f", "-")
	return err
}

// Delete deletes the objects of manifests; one that does not exist is deleted.
func (c *Cluster) Delete(ctx context.Context, manifests []byte) error {
	_, err := c.Kubectl(ctx, manifests, "delete", "--ignore-not-found", "-f", "-")
	return err
}

// Kubectl runs kubectl as the administrator and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig=" + c.Kubeconfig}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+stateDir) // its discovery cache dies with the lab
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("cluster %s: kubectl %s: %w: %s", c.Name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// KillPod sends SIGKILL to every process of a pod, as a crash does, and keeps
// its containers down for a time; then they are restarted.
func (c *Cluster) KillPod(namespace, name string, down time.Duration) error {
	for _, k := range c.kubelets {
		if k.Kill(namespace, name, down) {
			return nil
		}
	}
	return fmt.Errorf("no node of cluster %s runs pod %s/%s", c.Name, namespace, name)
}

// DialerIn dials numeric addresses from inside a pod's network, as its containers do.
func (c *Cluster) DialerIn(namespace, name string) load.DialContext {
	return func(ctx context.Context, proto, address string) (net.Conn, error) {
		for _, k := range c.kubelets {
			if conn, found, err := k.Dial(ctx, types.NamespacedName{Namespace: namespace, Name: name}, proto, address); found {
				return conn, err
			}
		}
		return nil, fmt.Errorf("no node of cluster %s runs pod %s/%s", c.Name, namespace, name)
	}
}

// FreezeAPIServer makes the cluster's API server accept connections and answer
// nothing, until ThawAPIServer.
func (c *Cluster) FreezeAPIServer() { c.plane.Freeze() }

// ThawAPIServer ends FreezeAPIServer.
func (c *Cluster) ThawAPIServer() { c.plane.Thaw() }

// Sign signs a client certificate by the cluster's client CA: RBAC sees this
// user in these groups.
func (c *Cluster) Sign(user string, groups ...string) (controlplane.KeyPair, error) {
	return c.plane.CA.Client(user, groups...)
}

// As is REST for another user, bound only by RBAC.
func (c *Cluster) As(user string, groups ...string) (*rest.Config, error) {
	pair, err := c.Sign(user, groups...)
	if err != nil {
		return nil, err
	}
	return c.plane.RESTFor(pair), nil
}

// AwaitPods waits until exactly n pods with a label selector are ready and no
// other is left, also none that still terminates.
func (c *Cluster) AwaitPods(ctx context.Context, namespace, selector string, n int) error {
	last := "nothing seen yet"
	for {
		pods, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err == nil {
			var ready int
			if ready, last = readyPods(pods.Items); ready == n && len(pods.Items) == n {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster %s: want %d ready pods %s in %s: %w; pods: %s", c.Name, n, selector, namespace, ctx.Err(), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func readyPods(pods []v1.Pod) (int, string) {
	ready, text := 0, []string{}
	for _, p := range pods {
		state := string(p.Status.Phase)
		for _, cond := range p.Status.Conditions {
			if cond.Type == v1.PodReady && cond.Status == v1.ConditionTrue && p.DeletionTimestamp == nil {
				ready++
				state = "ready"
			}
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Waiting != nil {
				state += " " + s.State.Waiting.Reason + " " + s.State.Waiting.Message
			}
		}
		text = append(text, p.Name+" "+state+" "+p.Status.Message)
	}
	return ready, strings.Join(text, "; ")
}

// Logs is what a container has written so far, over all its restarts.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	stream, err := c.Client.CoreV1().Pods(namespace).GetLogs(pod, &v1.PodLogOptions{Container: container}).Stream(ctx)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	data, err := io.ReadAll(stream)
	return string(data), err
}

// KubeconfigFor is the administrator's kubeconfig with the API server under
// another URL, whose host must be its node's address, localhost or 127.0.0.1.
func (c *Cluster) KubeconfigFor(server string) api.Config {
	return c.plane.ConfigFor(server, c.plane.Admin())
}
