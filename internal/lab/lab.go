package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"crossway.dev/crossway/internal/lab/controlplane"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/kubelet"
	"crossway.dev/crossway/internal/lab/network"
	"crossway.dev/crossway/internal/lab/process"
)

// Member asks for one member cluster.
type Member struct{ Name, Region, Zone string }

// Config is what a lab is made of. The zero value is the whole fleet: the hub,
// members us-west and us-east in region us, and eu-west in region eu.
type Config struct {
	Members []Member
	// Images are added to the image table, by repository; ImageFile, a YAML or
	// JSON file of the same form, after them.
	Images    kubelet.Images
	ImageFile string
	// LogDir keeps the log of each program and container; empty: in memory,
	// gone with the lab.
	LogDir string
	// HubAudit is an audit policy for the hub's API server (YAML).
	HubAudit []byte
}

// Members of the whole fleet.
var Members = []Member{{"us-west", "us", "us-west-1"}, {"us-east", "us", "us-east-1"}, {"eu-west", "eu", "eu-west-1"}}

// Lab is a running fleet.
type Lab struct {
	Hub     *Cluster
	Members map[string]*Cluster
	// Regions are the members' regions, in the order of Config.Members.
	Regions  []string
	Programs install.Programs
	LogDir   string

	network  *network.Network
	group    *process.Group
	stop     context.CancelFunc
	kubelets sync.WaitGroup
	progress io.Writer
	images   kubelet.Images
	// hubValues are those of InstallOptions.
	hubValues string
}

// regionAddresses is where a region's gateway addresses lie: any address of
// the range reaches the region's Envoys.
func regionAddresses(region string, regions []string) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(1 + slices.Index(regions, region)), 0}), 24)
}

// GatewayAddresses is the range of addresses that a region's Envoys share:
// 198.18.<n>.0/24 for the n-th of Regions, so us 1 and eu 2 in the whole fleet.
func (l *Lab) GatewayAddresses(region string) netip.Prefix {
	return regionAddresses(region, l.Regions)
}

// Start starts the fleet and returns when every API server is ready and every
// node registered; about 15 s on 2 cores. It must run inside (see Enter).
// Progress lines go to progress.
func Start(ctx context.Context, cfg Config, progress io.Writer) (*Lab, error) {
	if !Inside() {
		return nil, errors.New("call lab.Enter first")
	}
	programs, err := install.Ensure(ctx, progress)
	if err != nil {
		return nil, err
	}
	if cfg.Members == nil {
		cfg.Members = Members
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lab{Members: map[string]*Cluster{}, Programs: programs, LogDir: cfg.LogDir, stop: stop, progress: progress}
	l.group = process.NewGroup(func(p *process.Process) { fmt.Fprintln(progress, "lab:", p.Err()) })
	for _, m := range cfg.Members {
		if !slices.Contains(l.Regions, m.Region) {
			l.Regions = append(l.Regions, m.Region)
		}
	}
	if err := l.start(ctx, life, cfg); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends every process of the lab and removes its networks.
func (l *Lab) Close() {
	l.stop()
	l.kubelets.Wait()
	l.group.Close()
	if l.network != nil {
		if err := l.network.Close(); err != nil {
			slog.Warn("close the lab's network", "error", err)
		}
	}
}

func (l *Lab) start(ctx, life context.Context, cfg Config) error {
	begin := time.Now()
	if l.LogDir == "" {
		l.LogDir = filepath.Join(stateDir, "crossway-lab/log")
	}
	if err := os.MkdirAll(l.LogDir, 0o755); err != nil {
		return err
	}
	var err error
	if l.images, err = l.imageTable(cfg); err != nil {
		return err
	}
	plans := plan(cfg, l.Regions)
	if l.network, err = network.New(nodeSpecs(plans, l.Regions)); err != nil {
		return fmt.Errorf("make networks: %w", err)
	}
	env := controlplane.Env{Programs: l.Programs, Group: l.group, Dir: filepath.Join(stateDir, "crossway-lab"), LogDir: l.LogDir}
	etcd, err := controlplane.StartEtcd(ctx, env, network.LabControl.String(), 2379, 2380)
	if err != nil {
		return err
	}
	clusters := make([]*Cluster, len(plans))
	errs := make([]error, len(plans))
	var all sync.WaitGroup
	for i, p := range plans {
		all.Go(func() {
			if clusters[i], errs[i] = l.startCluster(ctx, life, env, p, etcd); errs[i] != nil {
				errs[i] = fmt.Errorf("cluster %s: %w", p.name, errs[i])
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	l.Hub = clusters[0]
	for _, c := range clusters[1:] {
		l.Members[c.Name] = c
	}
	fmt.Fprintf(l.progress, "%d clusters ready in %s\n", len(clusters), time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// imageTable is what the lab knows by itself, then what cfg adds.
func (l *Lab) imageTable(cfg Config) (kubelet.Images, error) {
	images := kubelet.Images{
		"envoy":      {Entrypoint: []string{"envoy"}, Files: map[string]string{"/usr/local/bin/envoy": l.Programs.Envoy}},
		"kube-proxy": {Entrypoint: []string{"kube-proxy"}}, // of which the charts use nft, this machine's
		"kubectl":    kubelet.Program(l.Programs.Path("kubectl")),
		"coredns":    kubelet.Program(l.Programs.CoreDNS),
		"busybox":    {Cmd: []string{"sh"}}, "alpine": {Cmd: []string{"sh"}}, "debian": {Cmd: []string{"sh"}},
	}
	maps.Copy(images, ourImages())
	maps.Copy(images, cfg.Images)
	if cfg.ImageFile == "" {
		return images, nil
	}
	return images.With(cfg.ImageFile)
}

// clusterPlan is one cluster before it exists.
type clusterPlan struct {
	name, region, zone string
	pods               netip.Prefix
	services           netip.Prefix
	nodes              []nodePlan
	audit              []byte
}

type nodePlan struct {
	name   string
	labels map[string]string
}

// plan gives each cluster its nodes and ranges: the hub's own, and one node of
// the hub's cluster in each region, whose network is the region's; members
// have one node each. Pods of the n-th member live in 10.n.0.0/16.
func plan(cfg Config, regions []string) []clusterPlan {
	place := func(region, zone string) map[string]string {
		return map[string]string{"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
	}
	hub := clusterPlan{
		name: "hub", pods: netip.MustParsePrefix("10.10.0.0/16"), services: netip.MustParsePrefix("10.110.0.0/16"), audit: cfg.HubAudit,
		nodes: []nodePlan{{"hub", place("hub", "hub-1")}},
	}
	for _, r := range regions {
		hub.nodes = append(hub.nodes, nodePlan{"edge-" + r, place(r, r+"-edge-1")})
	}
	plans := []clusterPlan{hub}
	for i, m := range cfg.Members {
		plans = append(plans, clusterPlan{
			name: m.Name, region: m.Region, zone: m.Zone,
			pods: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 0}), 16), services: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + i), 0, 0}), 16),
			nodes: []nodePlan{{m.Name, place(m.Region, m.Zone)}},
		})
	}
	return plans
}

// nodeSpecs are the namespaces of the backbone: the clusters' own nodes, the
// regions (nodes of the hub's cluster, without pods of their own), and one
// namespace for each region's clients.
func nodeSpecs(plans []clusterPlan, regions []string) []network.NodeSpec {
	var specs []network.NodeSpec
	for _, p := range plans {
		specs = append(specs, network.NodeSpec{Name: p.nodes[0].name, PodCIDR: p.pods, Services: p.services, Control: true})
	}
	for _, r := range regions {
		specs = append(specs,
			network.NodeSpec{Name: "edge-" + r, Services: plans[0].services, Local: []netip.Prefix{regionAddresses(r, regions)}},
			network.NodeSpec{Name: "client-" + r})
	}
	return specs
}

// Cut takes the uplink of a node down: a member cluster by its name, "hub", or
// a region's edge by "edge-<region>". What it sends and is sent vanishes; its
// own control plane, pods and Services go on, and REST still reaches it.
func (l *Lab) Cut(node string) error { return l.network.Cut(node) }

// Restore brings a node's uplink back.
func (l *Lab) Restore(node string) error { return l.network.Restore(node) }

// CutBetween lets everything vanish that two IPv4 addresses send each other, at least one of them a pod's: a split of
// the network in which each side reaches all others.
func (l *Lab) CutBetween(a, b string) error { return l.between(a, b, l.network.CutBetween) }

// RestoreBetween ends CutBetween.
func (l *Lab) RestoreBetween(a, b string) error { return l.between(a, b, l.network.RestoreBetween) }

func (l *Lab) between(a, b string, change func(a, b netip.Addr) error) error {
	first, err := netip.ParseAddr(a)
	if err != nil {
		return err
	}
	second, err := netip.ParseAddr(b)
	if err != nil {
		return err
	}
	return change(first, second)
}

// Dialer dials numeric addresses as a client in a region does: from a network
// of its own beside the region's edge, untouched by any Cut of a cluster.
func (l *Lab) Dialer(region string) func(ctx context.Context, network, address string) (net.Conn, error) {
	ns := l.network.Nodes["client-"+region].NS
	return func(ctx context.Context, proto, address string) (net.Conn, error) {
		return network.Dial(ctx, ns, proto, address)
	}
}

// DialerAt dials numeric addresses from inside a node's network, for instance
// an Envoy's admin port on 127.0.0.1 of "edge-us".
func (l *Lab) DialerAt(node string) func(ctx context.Context, network, address string) (net.Conn, error) {
	ns := l.network.Nodes[node].NS
	return func(ctx context.Context, proto, address string) (net.Conn, error) {
		return network.Dial(ctx, ns, proto, address)
	}
}

// Dial dials from the lab itself, which reaches every API server over the
// control link, and the backbone.
func (l *Lab) Dial(ctx context.Context, proto, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, proto, address)
}

// Cluster finds a cluster by name.
func (l *Lab) Cluster(name string) (*Cluster, error) {
	if name == l.Hub.Name {
		return l.Hub, nil
	}
	if c, ok := l.Members[name]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("no cluster %q; there are hub, %s", name, strings.Join(slices.Sorted(maps.Keys(l.Members)), ", "))
}
