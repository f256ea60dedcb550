package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Pod is one pod's network.
type Pod struct {
	NS      netns.NsHandle
	Address netip.Addr
	// Address6 is the pod's IPv6 address.
	Address6 netip.Addr
	node     *Node
	link     string
}

// HasPods reports whether the node has a network for pods. Without one, its
// pods can only use the node's own network.
func (node *Node) HasPods() bool { return node.spec.PodCIDR.IsValid() }

// NewPod makes a pod's network namespace on the node's bridge; a node without
// pod network returns an error. Addresses are handed out in order and not
// again before the range is used up, so that an address never reaches the pod
// that had it before.
func (node *Node) NewPod() (*Pod, error) {
	if !node.HasPods() {
		return nil, fmt.Errorf("node %s has no pod network", node.Name)
	}
	address := node.nextAddress()
	ns, err := newNamespace("")
	if err != nil {
		return nil, err
	}
	b := address.As4()
	p := &Pod{NS: ns, Address: address, Address6: twin(address), node: node, link: fmt.Sprintf("pod%d-%d", b[2], b[3])}
	if err := p.connect(); err != nil {
		ns.Close()
		return nil, fmt.Errorf("network of pod %s: %w", address, err)
	}
	return p, nil
}

func (node *Node) nextAddress() netip.Addr {
	node.mu.Lock()
	defer node.mu.Unlock()
	node.last = node.last.Next()
	if !node.spec.PodCIDR.Contains(node.last) {
		node.last = node.spec.PodCIDR.Addr().Next().Next()
	}
	return node.last
}

// connect gives the pod one address of each IP family without neighbours: all
// it sends goes through the node, so that kube-proxy sees both directions of a
// connection between two pods of one bridge.
func (p *Pod) connect() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = p.link, p.node.bridge
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(p.NS))}
	if err := p.node.handle.LinkAdd(veth); err != nil {
		return err
	}
	if err := p.node.handle.LinkSetUp(veth); err != nil {
		return err
	}
	return Do(p.NS, func() error {
		if err := sysctls(podSysctls); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth); err != nil {
			return err
		}
		gateway := p.node.spec.PodCIDR.Addr().Next()
		return errors.Join(route(eth, p.Address, gateway), route(eth, p.Address6, twin(gateway)))
	})
}

// route gives a pod an address, and a gateway for all that it sends.
func route(eth netlink.Link, address, gateway netip.Addr) error {
	index, bits := eth.Attrs().Index, address.BitLen()
	if err := netlink.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, bits)), Flags: unix.IFA_F_NODAD}); err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(gateway, bits)), Scope: unix.RT_SCOPE_LINK}); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice()})
}

var podSysctls = [][2]string{
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv4/ip_unprivileged_port_start", "0"},
	{"core/somaxconn", "4096"},
}

// Close takes the pod off the network.
func (p *Pod) Close() error {
	link, err := p.node.handle.LinkByName(p.link)
	if err == nil {
		err = p.node.handle.LinkDel(link)
	}
	p.NS.Close()
	return err
}

// Dial connects from inside a network namespace; the address must be numeric.
// Only making the socket happens on a thread inside: a socket stays in the
// namespace where it was made.
func Dial(ctx context.Context, ns netns.NsHandle, network, address string) (net.Conn, error) {
	if ap, err := netip.ParseAddrPort(address); err != nil || !ap.IsValid() {
		return nil, fmt.Errorf("dial %s: not a numeric address and port", address)
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	inside := true
	leave := func() error {
		if !inside {
			return nil
		}
		inside = false
		if err := netns.Set(home); err != nil {
			return err // stays locked: the thread ends with its goroutine
		}
		runtime.UnlockOSThread()
		return nil
	}
	d := net.Dialer{KeepAlive: -1, Control: func(string, string, syscall.RawConn) error { return leave() }}
	conn, err := d.DialContext(ctx, network, address)
	if e := leave(); e != nil && err == nil {
		err = e
	}
	return conn, err
}

// Listen listens inside a network namespace.
func Listen(ns netns.NsHandle, network, address string) (l net.Listener, err error) {
	e := Do(ns, func() error {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), network, address)
		return err
	})
	return l, e
}
