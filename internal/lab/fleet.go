package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/network"
)

// System is the namespace of Crossway's own pods, in every cluster.
const System = "crossway-system"

// xdsAddress is the ClusterIP of the hub's xDS Service, which edges dial.
const xdsAddress = "10.110.18.0"

// InstallOptions change what charts/hub is rendered with: YAML values that override
// those of the lab.
type InstallOptions struct{ Hub string }

// Install installs Crossway in the fleet as an administrator would: the CRDs,
// CoreDNS with the zone clusterset.local and charts/hub; each member joins by `crossway
// token create`, `join` and `accept`, and the edges of each region's EdgePool by the first
// two. It returns when every pod of it is ready. What runs are the programs that Enter built,
// with the arguments, ServiceAccounts and Roles that the charts render.
func (l *Lab) Install(ctx context.Context, o InstallOptions) error {
	begin := time.Now()
	l.hubValues = o.Hub
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"CRDs", l.installCRDs},
		{"DNS", l.InstallDNS},
		{"hub", func(ctx context.Context) error { return l.InstallHub(ctx, "") }},
		{"member agents", l.installAgents},
		{"edges", l.installEdges},
	}
	for _, s := range steps {
		limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err := s.do(limited)
		cancel()
		if err != nil {
			return fmt.Errorf("install %s: %w", s.what, err)
		}
		fmt.Fprintf(l.progress, "%s ready (%s)\n", s.what, time.Since(begin).Round(100*time.Millisecond))
	}
	return nil
}

// installCRDs applies the CRDs of the Gateway API (standard channel) and
// Crossway to the hub.
func (l *Lab) installCRDs(ctx context.Context) error {
	root, err := install.ModuleRoot()
	if err != nil {
		return err
	}
	gatewayAPI, err := install.ModuleDir(ctx, "sigs.k8s.io/gateway-api")
	if err != nil {
		return err
	}
	var manifests []byte
	for _, dir := range []string{filepath.Join(gatewayAPI, "config/crd/standard"), filepath.Join(root, "charts/hub/crds")} {
		more, err := concatenate(dir)
		if err != nil {
			return err
		}
		manifests = append(manifests, more...)
	}
	return l.Hub.applyCRDs(ctx, manifests)
}

func (c *Cluster) applyCRDs(ctx context.Context, manifests []byte) error {
	if err := c.Apply(ctx, manifests); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, nil, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	return err
}

// each does the same in every cluster at once.
func (l *Lab) each(do func(*Cluster) error) error {
	clusters := []*Cluster{l.Hub}
	for _, c := range l.Members {
		clusters = append(clusters, c)
	}
	errs := make([]error, len(clusters))
	var all sync.WaitGroup
	for i, c := range clusters {
		all.Go(func() { errs[i] = do(c) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// concatenate joins a directory's manifests to one.
func concatenate(dir string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, f := range files {
		if filepath.Base(f) == "kustomization.yaml" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		all = append(append(all, "\n---\n"...), data...)
	}
	return all, nil
}

const hubValues = `
region: hub
zone: hub-1
hubCIDRs: [%s, %s, %s, %s]
xds: {service: {type: NodePort, clusterIP: %s}}
memberAPI: {url: "https://%s:%d", nodePort: %[7]d}
gossip: {address: "%[6]s:30182", nodePort: 30182}
gatewayClasses: {regions: [%[8]s]}
`

// memberAPIPort is the port of the hub's node at which members read what they import.
const memberAPIPort = 30181

// InstallHub installs the hub anew with other values, which override those of Install, and returns
// when all replicas are new ones and ready; an old one may still be leaving.
func (l *Lab) InstallHub(ctx context.Context, override string) error {
	values := fmt.Sprintf(hubValues, l.Hub.PodCIDR, twin(l.Hub.PodCIDR), l.Hub.ServiceCIDR, twin(l.Hub.ServiceCIDR), xdsAddress,
		l.Hub.NodeAddress, memberAPIPort, strings.Join(l.Regions, ", "))
	if err := l.chart(ctx, l.Hub, release{name: "crossway-hub", chart: "hub", values: []string{values, l.hubValues, override}}); err != nil {
		return err
	}
	return l.rolledOut(ctx, l.Hub, "crossway-hub")
}

// twin is the IPv6 range that belongs to a range of the lab.
func twin(cidr string) string { return network.Twin(netip.MustParsePrefix(cidr)).String() }

// installAgents joins every member as a user does: a token from the hub, the agent with
// it, and the admin's word.
func (l *Lab) installAgents(ctx context.Context) error {
	return l.each(func(c *Cluster) error {
		if c == l.Hub {
			return nil
		}
		system, err := c.Client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			return err
		}
		token, err := l.token(ctx, c.Name, "--region="+c.Region, "--zone="+c.Zone,
			"--endpoint-cidr="+c.PodCIDR, "--endpoint-cidr="+twin(c.PodCIDR), "--export-namespace=*")
		if err != nil {
			return err
		}
		if err := l.join(ctx, c, token); err != nil {
			return err
		}
		if _, err := l.crossway(ctx, l.Hub, "", "accept", c.Name, "--yes", "--cluster-uid="+string(system.UID)); err != nil {
			return err
		}
		return l.rolledOut(ctx, c, "crossway-member-agent")
	})
}

// token is what `crossway token create` makes, for clusters that reach the hub over the backbone.
func (l *Lab) token(ctx context.Context, arguments ...string) (string, error) {
	return l.crossway(ctx, l.Hub, "", append([]string{"token", "create", "--hub-server=" + l.Hub.Server, "--output=jsonpath={.token}"}, arguments...)...)
}

// join runs `crossway join` in a cluster.
func (l *Lab) join(ctx context.Context, c *Cluster, token string, arguments ...string) error {
	_, err := l.crossway(ctx, c, token, append([]string{"join", "--token=-"}, arguments...)...)
	return err
}

// Crossway runs the command line against the hub, as its administrator, and returns what it prints.
func (l *Lab) Crossway(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv(binVariable), "crossway"), append(args, "--kubeconfig="+l.Hub.Kubeconfig)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("crossway %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// crossway runs the command line as the administrator of a cluster, and returns what it prints.
func (l *Lab) crossway(ctx context.Context, c *Cluster, stdin string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv(binVariable), "crossway"), append(arguments, "--kubeconfig="+c.Kubeconfig)...)
	cmd.Env = append(os.Environ(), "HOME="+stateDir) // its caches die with the lab
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cluster %s: crossway %s: %w: %s", c.Name, arguments[0], err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

const edgePool = `
apiVersion: crossway.dev/v1alpha1
kind: EdgePool
metadata: {name: %s}
spec: {region: %[1]s, addresses: [{cidr: %s}]}
`

// The drain times are short: no load balancer stands before the lab's edges,
// and its clients send short requests. One worker thread each: four Envoys
// share the machine with everything else.
const edgeValues = `
concurrency: 1
drain: {announceSeconds: 0, seconds: 3, waitSeconds: 15}
sourceLimit: {gateways: ["%s"]}
`

func (l *Lab) installEdges(ctx context.Context) error {
	errs := make([]error, len(l.Regions))
	var all sync.WaitGroup
	for i, region := range l.Regions {
		all.Go(func() { errs[i] = l.installEdge(ctx, region) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// installEdge joins the edges of a region, which run in the hub's cluster.
func (l *Lab) installEdge(ctx context.Context, region string) error {
	if err := l.Hub.Apply(ctx, fmt.Appendf(nil, edgePool, region, l.GatewayAddresses(region))); err != nil {
		return err
	}
	token, err := l.token(ctx, "--edge="+region, "--zone="+region+"-edge-1")
	if err != nil {
		return err
	}
	file := filepath.Join(stateDir, "crossway-lab", "values-edge-"+region+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, edgeValues, l.GatewayAddresses(region)), 0o644); err != nil {
		return err
	}
	return l.join(ctx, l.Hub, token, "--edge", "--hub-address="+xdsAddress, "--values="+file)
}

type release struct {
	name, chart string
	values      []string // YAML, later ones override
}

// chart renders one of the project's charts and applies it.
func (l *Lab) chart(ctx context.Context, c *Cluster, r release) error {
	root, err := install.ModuleRoot()
	if err != nil {
		return err
	}
	args := []string{"template", r.name, filepath.Join(root, "charts", r.chart), "--namespace", System, "--kube-version", install.KubernetesVersion}
	for i, v := range r.values {
		file := filepath.Join(stateDir, "crossway-lab", fmt.Sprintf("values-%s-%s-%d.yaml", c.Name, r.name, i))
		if err := os.WriteFile(file, []byte(v), 0o644); err != nil {
			return err
		}
		args = append(args, "--values", file)
	}
	cmd := exec.CommandContext(ctx, l.Programs.Helm, args...)
	var output bytes.Buffer
	cmd.Stderr = &output
	manifests, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("render charts/%s: %w: %s", r.chart, err, strings.TrimSpace(output.String()))
	}
	if err := c.createNamespace(ctx, System); err != nil {
		return err
	}
	return c.Apply(ctx, manifests)
}

func (c *Cluster) createNamespace(ctx context.Context, name string) error {
	return c.Apply(ctx, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}\n"))
}

// rolledOut waits for a Deployment of Crossway; its error has the state
// and logs of the pods.
func (l *Lab) rolledOut(ctx context.Context, c *Cluster, deployment string) error {
	_, err := c.Kubectl(ctx, nil, "rollout", "status", "-n", System, "deployment/"+deployment, "--timeout=60s")
	if err == nil {
		return nil
	}
	pods, listErr := c.Client.CoreV1().Pods(System).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + deployment})
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	_, state := readyPods(pods.Items)
	logs, _ := c.Kubectl(ctx, nil, "logs", "-n", System, "deployment/"+deployment, "--tail=20")
	return fmt.Errorf("%w\npods: %s\n%s", err, state, logs)
}
