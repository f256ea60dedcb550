package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"

	"crossway.dev/crossway/pkg/program"
)

// Options are the flags of member-agent, beside those of every program.
type Options struct {
	Kubeconfig  string
	MetricsAddr string
	HealthAddr  string
	LeaderElect bool
	Namespace   string
	GossipAddr  string
	Advertise   string
}

// Bind adds the flags to a set.
func (o *Options) Bind(flags *flag.FlagSet) {
	flags.StringVar(&o.Namespace, "namespace", "", "namespace of the agent in this cluster, with its Secrets crossway-join and crossway-hub-credential (required)")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for this cluster; empty: the pod's own ServiceAccount")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "address of /metrics; 0: none")
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "address of /healthz and /readyz; 0: none")
	flags.StringVar(&o.GossipAddr, "gossip-addr", "0", "address of gossip, on which the hub and other agents may dial this one (mutual TLS), like :18002; 0: this agent only dials the hub")
	flags.StringVar(&o.Advertise, "gossip-advertise", "", "address and port at which others dial --gossip-addr; empty: that of the pod (POD_IP). Where the hub cannot reach it, nobody is told of it")
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "let one of several agents of this cluster work, by a Lease in --namespace")
}

// Validate returns all faults of the flags together.
func (o *Options) Validate() error {
	var faults []error
	if o.Namespace == "" {
		faults = append(faults, errors.New("--namespace is missing: give the agent's own namespace, crossway-system"))
	}
	if o.GossipAddr != "0" {
		faults = append(faults, program.CheckAddress("--gossip-addr", o.GossipAddr))
	}
	if o.Advertise != "" {
		if _, err := netip.ParseAddrPort(o.Advertise); err != nil || o.GossipAddr == "0" {
			faults = append(faults, fmt.Errorf("--gossip-advertise %q: give an address and a port, like 192.0.2.7:18002, and --gossip-addr", o.Advertise))
		}
	}
	return errors.Join(faults...)
}

// gossip is where the agent listens for gossip and where others dial it; "": nowhere.
func (o *Options) gossip(podIP string) (listen, advertise string) {
	if o.GossipAddr == "0" {
		return "", ""
	}
	if o.Advertise == "" && podIP != "" {
		_, port, _ := net.SplitHostPort(o.GossipAddr) // checked by Validate
		return o.GossipAddr, net.JoinHostPort(podIP, port)
	}
	return o.GossipAddr, o.Advertise
}
