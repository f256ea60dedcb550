package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NodeSpec asks for one namespace on the backbone.
type NodeSpec struct {
	Name string
	// PodCIDR, where valid, gives the node a bridge for pods.
	PodCIDR netip.Prefix
	// Local are addresses that the node answers for, each one of the prefix
	// (AnyIP: `ip route add local <prefix> dev lo`).
	Local []netip.Prefix
	// Services is the range of ClusterIPs in the node's cluster. A connection
	// that the node itself makes needs a route before kube-proxy translates it.
	Services netip.Prefix
	// Control gives the node a control link, which no cut touches.
	Control bool
}

// Node is one namespace on the backbone.
type Node struct {
	Name             string
	NS               netns.NsHandle
	Address, Control netip.Addr
	spec             NodeSpec
	handle           *netlink.Handle // in NS
	bridge           int
	mu               sync.Mutex // guards last
	last             netip.Addr // the pod address given out last
}

// Network is the backbone and its nodes.
type Network struct {
	Nodes map[string]*Node
	root  *netlink.Handle
}

// LabControl is the lab's own address on the control link: etcd listens there.
var LabControl = netip.MustParseAddr("172.19.0.1")

var (
	backbonePrefix = netip.MustParsePrefix("172.18.0.0/24")
	controlPrefix  = netip.MustParsePrefix("172.19.0.0/24")
)

const firstNode = 10 // host part of the first node's addresses; the lab itself is 1

// New makes the networks in the current network namespace, which must be the
// lab's own (lab.Enter). The n-th node gets the address 172.18.0.(10+n).
func New(specs []NodeSpec) (*Network, error) {
	root, err := netlink.NewHandle()
	if err != nil {
		return nil, err
	}
	n := &Network{Nodes: map[string]*Node{}, root: root}
	if err := sysctls(rootSysctls); err != nil {
		return nil, err
	}
	if err := up(root, "lo"); err != nil {
		return nil, err
	}
	for name, prefix := range map[string]netip.Prefix{"backbone": backbonePrefix, "control": controlPrefix} {
		if err := addBridge(root, name, netip.PrefixFrom(host(prefix, 1), prefix.Bits())); err != nil {
			return nil, err
		}
	}
	for i, spec := range specs {
		node, err := n.addNode(spec, byte(firstNode+i))
		if err != nil {
			return nil, fmt.Errorf("network of %s: %w", spec.Name, err)
		}
		n.Nodes[spec.Name] = node
	}
	return n, n.connect()
}

// Close removes the nodes' namespaces and the bridges.
func (n *Network) Close() error {
	var errs []error
	for _, node := range n.Nodes {
		node.handle.Close()
		errs = append(errs, node.NS.Close(), netns.DeleteNamed(node.Name))
	}
	for _, name := range []string{"backbone", "control"} {
		errs = append(errs, n.root.LinkDel(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	}
	return errors.Join(errs...)
}

// Cut takes a node's uplink down at the backbone's end: what it sends and what
// is sent to it vanishes. The control link stays.
func (n *Network) Cut(node string) error { return n.setUplink(node, n.root.LinkSetDown) }

// Restore brings the uplink back.
func (n *Network) Restore(node string) error { return n.setUplink(node, n.root.LinkSetUp) }

// CutBetween lets everything vanish that two addresses send each other, while all others reach both. At least one is a
// pod's; the node of each pod swallows what the pod sends.
func (n *Network) CutBetween(a, b netip.Addr) error {
	return n.between(a, b, (*netlink.Handle).RuleAdd)
}

// RestoreBetween ends CutBetween.
func (n *Network) RestoreBetween(a, b netip.Addr) error {
	return n.between(a, b, (*netlink.Handle).RuleDel)
}

func (n *Network) between(a, b netip.Addr, change func(*netlink.Handle, *netlink.Rule) error) error {
	found := false
	for _, node := range n.Nodes {
		for _, way := range [][2]netip.Addr{{a, b}, {b, a}} {
			if !node.HasPods() || !node.spec.PodCIDR.Contains(way[0]) {
				continue
			}
			found = true
			rule := netlink.NewRule() // a blackhole says nothing to the sender, also where the node only forwards
			rule.Type, rule.Family, rule.Priority = unix.RTN_BLACKHOLE, netlink.FAMILY_V4, 1
			rule.Src, rule.Dst = ipNet(netip.PrefixFrom(way[0], 32)), ipNet(netip.PrefixFrom(way[1], 32))
			if err := change(node.handle, rule); err != nil {
				return fmt.Errorf("between %s and %s on %s: %w", way[0], way[1], node.Name, err)
			}
		}
	}
	if !found {
		return fmt.Errorf("neither %s nor %s is an address of a pod", a, b)
	}
	return nil
}

func (n *Network) setUplink(node string, set func(netlink.Link) error) error {
	if n.Nodes[node] == nil {
		return fmt.Errorf("no node %q on the backbone", node)
	}
	link, err := n.root.LinkByName(uplink(n.Nodes[node].Address))
	if err != nil {
		return err
	}
	return set(link)
}

func uplink(a netip.Addr) string { return fmt.Sprintf("up%d", a.As4()[3]) }

func addBridge(h *netlink.Handle, name string, address netip.Prefix, addresses ...netip.Prefix) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac(address.Addr())}}
	if err := h.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	for _, p := range append(addresses, address) {
		if err := h.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return h.LinkSetUp(bridge)
}

func (n *Network) addNode(spec NodeSpec, number byte) (*Node, error) {
	node := &Node{Name: spec.Name, spec: spec}
	var err error
	if node.NS, err = newNamespace(spec.Name); err != nil {
		return nil, err
	}
	if node.handle, err = netlink.NewHandleAt(node.NS); err != nil {
		return nil, err
	}
	settings := nodeSysctls
	if !spec.Services.IsValid() {
		settings = slices.Concat(nodeSysctls, clientSysctls)
	}
	if err := Do(node.NS, func() error { return sysctls(settings) }); err != nil {
		return nil, err
	}
	if err := up(node.handle, "lo"); err != nil {
		return nil, err
	}
	node.Address = host(backbonePrefix, number)
	if err := n.plug(node, "backbone", uplink(node.Address), "eth0", netip.PrefixFrom(node.Address, backbonePrefix.Bits())); err != nil {
		return nil, err
	}
	if spec.Control {
		node.Control = host(controlPrefix, number)
		if err := n.plug(node, "control", fmt.Sprintf("ctl%d", number), "ctl0", netip.PrefixFrom(node.Control, controlPrefix.Bits())); err != nil {
			return nil, err
		}
	}
	return node, node.addLocal()
}

// addLocal gives a node its own addresses and its pod bridge.
func (node *Node) addLocal() error {
	lo, err := node.handle.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, p := range node.spec.Local {
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}
		if err := node.handle.RouteAdd(route); err != nil {
			return fmt.Errorf("local route %s: %w", p, err)
		}
	}
	if !node.HasPods() {
		return nil
	}
	gateway := node.spec.PodCIDR.Addr().Next()
	pods := netip.PrefixFrom(gateway, node.spec.PodCIDR.Bits())
	if err := addBridge(node.handle, "pods", pods, Twin(pods)); err != nil {
		return err
	}
	link, err := node.handle.LinkByName("pods")
	if err != nil {
		return err
	}
	node.bridge, node.last = link.Attrs().Index, gateway
	return nil
}

// plug joins a node to a bridge of the lab by a pair of virtual Ethernet ends.
func (n *Network) plug(node *Node, bridge, outer, inner string, address netip.Prefix) error {
	master, err := n.root.LinkByName(bridge)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = outer, master.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: inner, PeerHardwareAddr: mac(address.Addr()), PeerNamespace: netlink.NsFd(int(node.NS))}
	if err := n.root.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s: %w", outer, err)
	}
	if err := n.root.LinkSetUp(veth); err != nil {
		return err
	}
	link, err := node.handle.LinkByName(inner)
	if err != nil {
		return err
	}
	for _, p := range []netip.Prefix{address, Twin(address)} {
		if err := node.handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return node.handle.LinkSetUp(link)
}

// connect gives every node, and the lab itself, the addresses of all: permanent
// neighbours and the routes to pods and gateway addresses.
func (n *Network) connect() error {
	if err := n.addNeighbours(n.root, "backbone", netip.Addr{}); err != nil {
		return err
	}
	for _, node := range n.Nodes {
		if err := n.addNeighbours(node.handle, "eth0", node.Address); err != nil {
			return fmt.Errorf("routes of %s: %w", node.Name, err)
		}
		if !node.spec.Services.IsValid() {
			continue
		}
		link, err := node.handle.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, services := range []netip.Prefix{node.spec.Services, Twin(node.spec.Services)} {
			if err := node.handle.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(services), Scope: unix.RT_SCOPE_LINK}); err != nil {
				return fmt.Errorf("route to Services of %s: %w", node.Name, err)
			}
		}
	}
	return nil
}

func (n *Network) addNeighbours(h *netlink.Handle, device string, self netip.Addr) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	neighbour := func(a netip.Addr) error {
		four := &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac(a)}
		if !self.IsValid() { // the lab itself has no IPv6 address
			return h.NeighSet(four)
		}
		six := *four
		six.Family, six.IP = netlink.FAMILY_V6, twin(a).AsSlice()
		return errors.Join(h.NeighSet(four), h.NeighSet(&six))
	}
	errs := []error{}
	if self.IsValid() {
		errs = append(errs, neighbour(host(backbonePrefix, 1)))
	}
	for _, other := range n.Nodes {
		if other.Address == self {
			continue
		}
		errs = append(errs, neighbour(other.Address))
		for _, p := range append([]netip.Prefix{other.spec.PodCIDR}, other.spec.Local...) {
			if p.IsValid() {
				errs = append(errs, h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(p), Gw: other.Address.AsSlice()}))
			}
		}
		if other.HasPods() && self.IsValid() {
			errs = append(errs, h.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(Twin(other.spec.PodCIDR)), Gw: twin(other.Address).AsSlice()}))
		}
	}
	return errors.Join(errs...)
}

// mac is the hardware address of an IPv4 address: locally administered, so
// that neighbours are known before they exist.
func mac(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x00, b[0], b[1], b[2], b[3]}
}

// Twin is the IPv6 range that belongs to an IPv4 range of the lab: whatever has an address there has also
// its twin, fd10:: with the IPv4 address as its last four bytes.
func Twin(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(twin(p.Addr()), 96+p.Bits()) }

func twin(a netip.Addr) netip.Addr {
	six, four := [16]byte{0xfd, 0x10}, a.As4()
	copy(six[12:], four[:])
	return netip.AddrFrom16(six)
}

func host(p netip.Prefix, number byte) netip.Addr {
	b := p.Addr().As4()
	b[3] = number
	return netip.AddrFrom4(b)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

// newNamespace makes a namespace that `ip netns` knows by name.
func newNamespace(name string) (ns netns.NsHandle, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if name == "" {
			ns, err = netns.New()
		} else {
			ns, err = netns.NewNamed(name)
		}
	}()
	<-done
	return ns, err
}

// Do runs act on a thread inside a network namespace. Goroutines that act
// starts are not inside. A panic of act is returned as an error.
func Do(ns netns.NsHandle, act func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as above
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic inside a network namespace: %v\n%s", r, debug.Stack())
			}
		}()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- act()
	}()
	return <-done
}

var (
	rootSysctls = [][2]string{
		{"ipv4/ip_forward", "0"}, // the backbone is a switch, not a router
		{"ipv6/conf/default/disable_ipv6", "1"},
		{"ipv4/conf/default/rp_filter", "0"}, {"ipv4/conf/all/rp_filter", "0"},
	}
	nodeSysctls = [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv6/conf/all/forwarding", "1"}, {"ipv6/conf/default/accept_dad", "0"}, // nothing to wait for
		{"ipv4/conf/default/rp_filter", "0"}, {"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/send_redirects", "0"}, {"ipv4/conf/all/send_redirects", "0"}, // pods reach their neighbours through the node
		{"ipv4/ip_unprivileged_port_start", "0"}, // as containerd sets it
		{"ipv4/tcp_retries2", "3"},               // as the notes of chart edge ask
		{"ipv4/tcp_tw_reuse", "1"},
		// A closing listener hands its half-open connections to the next one
		// on the same address (two Envoys share addresses by SO_REUSEPORT).
		{"ipv4/tcp_migrate_req", "1"},
		{"core/somaxconn", "4096"},
	}
	// clientSysctls are those of a node where nothing listens, only load generators, which open many connections to one
	// address. Elsewhere a connection could take the port of a program that starts later.
	clientSysctls = [][2]string{{"ipv4/ip_local_port_range", "1024 65535"}}
)

// sysctls sets values of the calling thread's network namespace. Where the
// kernel has br_netfilter, it is turned off: frames between a bridge's ports
// are no business of kube-proxy's rules, and translating a pod's connection to
// itself there would send it back through the port that it came from.
func sysctls(values [][2]string) error {
	const bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := os.Stat(bridge); err == nil {
		if err := os.WriteFile(bridge, []byte("0"), 0o644); err != nil {
			return err
		}
	}
	for _, kv := range values {
		if err := os.WriteFile("/proc/sys/net/"+kv[0], []byte(kv[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}
