package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
)

// Options are the flags of the hub. There is no file and no environment beside them.
type Options struct {
	Kubeconfig  string
	Namespace   string
	XDSAddr     string
	XDSNames    string
	MetricsAddr string
	HealthAddr  string
	LeaderElect bool
	Region      string
	Zone        string
	HubCIDRs    string
	LogLevel    string
	Disable     string
}

// Bind declares the flags.
func (o *Options) Bind(f *flag.FlagSet) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster; empty: the ServiceAccount of the pod")
	f.StringVar(&o.Namespace, "namespace", "crossway-system", "namespace of the hub: its certificates and its election Lease")
	f.StringVar(&o.XDSAddr, "xds-addr", ":18000", "address that edges connect to (gRPC, mutual TLS)")
	f.StringVar(&o.XDSNames, "xds-names", "", "DNS names and addresses that edges dial, separated by commas: the names of the serving certificate")
	f.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "address of /metrics; 0 switches it off")
	f.StringVar(&o.HealthAddr, "health-addr", ":8081", "address of /healthz and /readyz; 0 switches it off")
	f.BoolVar(&o.LeaderElect, "leader-elect", false, "elect one of several replicas to write; without it this one writes")
	f.StringVar(&o.Region, "region", "", "region of the hub's own cluster, for Services of it that routes name; empty: no region's own")
	f.StringVar(&o.Zone, "zone", "", "zone of the hub's own cluster")
	f.StringVar(&o.HubCIDRs, "hub-cidrs", "", "pod and Service CIDRs of the hub's own cluster, separated by commas: no member may announce "+
		"an address in them, and no endpoint of a Service of the hub is outside of them")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.Disable, "disable", "", "for tests alone, costs requests: mechanisms to switch off, separated by commas: "+strings.Join(disablable, ", "))
}

// Validate gives all faults together.
func (o *Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(label.MatchString(o.Namespace), "--namespace %q is not the name of a namespace", o.Namespace)
	check(o.Region == "" || label.MatchString(o.Region), "--region %q: use 1 to 63 lower case letters, digits and '-'", o.Region)
	check(o.Zone == "" || label.MatchString(o.Zone), "--zone %q: use 1 to 63 lower case letters, digits and '-'", o.Zone)
	check(len(o.xdsNames()) > 0, "--xds-names is empty: name at least one DNS name or address that edges dial")
	for _, name := range o.xdsNames() {
		check(net.ParseIP(name) != nil || len(name) <= 253 && hostname.MatchString(name), "--xds-names: %q is neither a DNS name nor an address", name)
	}
	faults = append(faults, addressFault("--xds-addr", o.XDSAddr, false), addressFault("--metrics-addr", o.MetricsAddr, true), addressFault("--health-addr", o.HealthAddr, true))
	_, err := o.hubCIDRs()
	faults = append(faults, err)
	_, err = o.logLevel()
	faults = append(faults, err)
	faults = append(faults, o.disableFaults()...)
	return errors.Join(faults...)
}

var (
	label    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostname = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

func addressFault(flag, address string, canBeOff bool) error {
	if canBeOff && address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q is not host:port, like :8080", flag, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("%s %q: port %q is not a number from 0 to 65535", flag, address, port)
	}
	return nil
}

func list(text string) []string {
	var out []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" && !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out
}

func (o *Options) xdsNames() []string { return list(o.XDSNames) }

func (o *Options) hubCIDRs() ([]netip.Prefix, error) {
	var out []netip.Prefix
	var faults []error
	for _, text := range list(o.HubCIDRs) {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("--hub-cidrs: %q is not a CIDR like 10.0.0.0/16", text))
			continue
		}
		out = append(out, cidr.Masked())
	}
	return out, errors.Join(faults...)
}

func (o *Options) logLevel() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		return level, fmt.Errorf("--log-level %q: use debug, info, warn or error", o.LogLevel)
	}
	return level, nil
}

func (o *Options) place() fleet.Place { return fleet.Place{Region: o.Region, Zone: o.Zone} }
