package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/internal/lab"
)

// gatewayPort is a TCP port of a Gateway in a region.
type gatewayPort struct {
	gateway types.NamespacedName
	region  string
	port    int32
}

// target is where a gatewayPort is reached inside the lab.
type target struct {
	gatewayPort
	scheme  string // of a URL, empty where the listener speaks no HTTP
	address string // host and port
}

// targets are the TCP ports of all Gateways that have an address in a region,
// those of the oldest Gateway first.
func targets(gateways []gatewayv1.Gateway, regionOf func(netip.Addr) string) []target {
	gateways = slices.Clone(gateways)
	slices.SortFunc(gateways, func(a, b gatewayv1.Gateway) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var all []target
	seen := map[gatewayPort]bool{}
	for _, g := range gateways {
		for _, a := range g.Status.Addresses {
			ip, err := netip.ParseAddr(a.Value)
			if err != nil || regionOf(ip) == "" {
				continue // a host name, or an address that no edge of the lab has
			}
			for _, l := range g.Spec.Listeners {
				key := gatewayPort{types.NamespacedName{Namespace: g.Namespace, Name: g.Name}, regionOf(ip), l.Port}
				if l.Protocol == gatewayv1.UDPProtocolType || seen[key] {
					continue
				}
				seen[key] = true
				scheme := map[gatewayv1.ProtocolType]string{gatewayv1.HTTPProtocolType: "http", gatewayv1.HTTPSProtocolType: "https"}[l.Protocol]
				all = append(all, target{key, scheme, netip.AddrPortFrom(ip, uint16(l.Port)).String()})
			}
		}
	}
	return all
}

// forwarder offers Gateways on ports of the machine. A port stays with its
// Gateway for as long as that has the listener, whatever its address.
type forwarder struct {
	regions []string
	listen  func(address string) (net.Listener, error)
	dial    func(ctx context.Context, region, address string) (net.Conn, error)
	out     io.Writer // a line for each port that is opened or closed
	open    map[gatewayPort]*offer
	failed  map[gatewayPort]bool // those that no port of the machine could be opened for
}

// offer is one port of the machine.
type offer struct {
	target   atomic.Pointer[target]
	listener net.Listener
	address  string // of the machine
}

func (o *offer) String() string {
	t := o.target.Load()
	where := o.address
	if t.scheme != "" {
		where = t.scheme + "://" + o.address + "/"
	}
	return fmt.Sprintf("Gateway %s, port %d in region %s (%s): %s", t.gateway, t.port, t.region, t.address, where)
}

// update opens the ports of new targets, and closes those of targets that are
// gone. It reports whether anything has changed.
func (f *forwarder) update(ctx context.Context, targets []target) (changed bool) {
	wanted := map[gatewayPort]bool{}
	for _, t := range targets {
		wanted[t.gatewayPort] = true
	}
	for key, o := range f.open {
		if !wanted[key] {
			o.listener.Close()
			delete(f.open, key)
			changed = true
			fmt.Fprintf(f.out, "Gateway %s has no port %d in region %s any more; %s is closed\n", key.gateway, key.port, key.region, o.address)
		}
	}
	for _, t := range targets {
		o, ok := f.open[t.gatewayPort]
		if ok && *o.target.Load() == t {
			continue
		}
		if !ok {
			var err error
			if o, err = f.newOffer(t); err != nil {
				if !f.failed[t.gatewayPort] {
					fmt.Fprintf(f.out, "Gateway %s, port %d in region %s is not offered on this machine: %v\n", t.gateway, t.port, t.region, err)
				}
				f.failed[t.gatewayPort] = true
				continue
			}
			f.open[t.gatewayPort] = o
		}
		o.target.Store(&t)
		if !ok {
			go relay(ctx, o.listener, func() (net.Conn, error) {
				t := o.target.Load()
				return f.dial(ctx, t.region, t.address)
			})
		}
		changed = true
		fmt.Fprintln(f.out, o)
	}
	return changed
}

// newOffer listens on the first free port from the target's own on: 18080 for
// port 80 and 18443 for 443 in the first region, 28080 and 28443 in the second.
func (f *forwarder) newOffer(t target) (*offer, error) {
	first := int(t.port) % 10000
	switch t.port {
	case 80:
		first = 8080
	case 443:
		first = 8443
	}
	first += 10000 * (1 + slices.Index(f.regions, t.region))
	const attempts = 100
	var last error
	for port := first; port < first+attempts; port++ {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if f.uses(address) {
			continue
		}
		l, err := f.listen(address)
		if err == nil {
			return &offer{listener: l, address: address}, nil
		}
		last = err
	}
	return nil, last
}

func (f *forwarder) uses(address string) bool {
	for _, o := range f.open {
		if o.address == address {
			return true
		}
	}
	return false
}

// list is every offer, a line each.
func (f *forwarder) list() string {
	var lines []string
	for _, o := range f.open {
		lines = append(lines, o.String()+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// forwardGateways offers the hub's Gateways on the machine until ctx ends, and
// keeps the list of them in a file.
func forwardGateways(ctx context.Context, fleet *lab.Lab, file string) {
	f := &forwarder{
		regions: fleet.Regions, listen: lab.Listen, out: os.Stdout, open: map[gatewayPort]*offer{}, failed: map[gatewayPort]bool{},
		dial: func(ctx context.Context, region, address string) (net.Conn, error) {
			return fleet.Dialer(region)(ctx, "tcp", address)
		},
	}
	regionOf := func(ip netip.Addr) string {
		for _, r := range fleet.Regions {
			if fleet.GatewayAddresses(r).Contains(ip) {
				return r
			}
		}
		return ""
	}
	for {
		var gateways gatewayv1.GatewayList
		data, err := fleet.Hub.Client.Discovery().RESTClient().Get().AbsPath("/apis/gateway.networking.k8s.io/v1/gateways").DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(data, &gateways)
		}
		// Without the CRDs (-bare) there is nothing to offer yet.
		if err == nil && f.update(ctx, targets(gateways.Items, regionOf)) {
			if err := os.WriteFile(file, []byte(f.list()), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, "lab: write the list of Gateways:", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}
