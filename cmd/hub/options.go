package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Options are the flags of the hub. There is no file and no environment beside them.
type Options struct {
	Kubeconfig   string
	Namespace    string
	XDSAddr      string
	XDSNames     string
	MemberAddr   string
	MemberURL    string
	GossipAddr   string
	GossipPublic string
	ReplicaAddr  string
	MetricsAddr  string
	HealthAddr   string
	LeaderElect  bool
	Region       string
	ClusterSet   string
	Zone         string
	HubCIDRs     string
	SecretSpaces string
	DebugAddr    string
	MaxEdges     int
	SnapshotDir  string
	Credential   string

	faults faults // of a build for tests
}

// Bind declares the flags.
func (o *Options) Bind(f *flag.FlagSet) {
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of the hub's cluster; empty: the ServiceAccount of the pod")
	f.StringVar(&o.Namespace, "namespace", "crossway-system", "namespace of the hub: its certificates and its election Lease")
	f.StringVar(&o.XDSAddr, "xds-addr", ":18000", "address that edges connect to (gRPC, mutual TLS)")
	f.StringVar(&o.XDSNames, "xds-names", "", "DNS names and addresses that edges dial, separated by commas: the names of the serving certificate")
	f.StringVar(&o.MemberAddr, "member-api-addr", ":18001", "address of the member API, from which members read what they import (HTTPS); 0 switches it off")
	f.StringVar(&o.MemberURL, "member-api-url", "", "URL of the member API for agents, like https://hub.example:18001; its host becomes a name of the serving certificate; "+
		"empty: agents are not told, and members import nothing")
	f.StringVar(&o.GossipAddr, "gossip-addr", ":18002", "address of gossip, for agents and other replicas (mutual TLS); 0 switches it off: members are then judged by their Leases alone")
	f.StringVar(&o.GossipPublic, "gossip-public-address", "", "host and port that agents dial for gossip, like hub.example:18002; empty: the host of --member-api-url with port 18002, "+
		"if that has port 18001, else agents are told of none")
	f.StringVar(&o.ReplicaAddr, "replica-addr", "0", "address that other replicas of the hub connect to (gRPC, mutual TLS), like :18003; "+
		"0: this is the only one")
	f.StringVar(&o.Credential, "joining-credential", "certificate", "what members authenticate with: certificate, or token (of a ServiceAccount) where the hub's "+
		"cluster signs no client certificates")
	f.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "address of /metrics; 0 switches it off")
	f.StringVar(&o.HealthAddr, "health-addr", ":8081", "address of /healthz and /readyz; 0 switches it off")
	f.BoolVar(&o.LeaderElect, "leader-elect", false, "elect one of several replicas to write; without it this one writes")
	f.StringVar(&o.Region, "region", "", "region of the hub's own cluster, for Services of it that routes name; empty: no region's own")
	f.StringVar(&o.ClusterSet, "clusterset", "crossway", "name of the fleet, which others read in ClusterProfiles and in members' ClusterProperties (clusterset.k8s.io)")
	f.StringVar(&o.Zone, "zone", "", "zone of the hub's own cluster")
	f.StringVar(&o.HubCIDRs, "hub-cidrs", "", "pod and Service CIDRs of the hub's own cluster, separated by commas, required: no member may announce "+
		"an address in them, and no endpoint of a Service of the hub is outside of them")
	f.StringVar(&o.SecretSpaces, "secret-namespaces", "", "namespaces whose Secrets the hub may read, separated by commas, for the certificates of "+
		"listeners; empty: all")
	f.IntVar(&o.MaxEdges, "max-edges", 100, "edges of one EdgePool that may be connected to this replica; keep all of a pool below it, since one replica takes them all while the others are away")
	f.StringVar(&o.DebugAddr, "debug-address", "", "loopback address of profiles (/debug/pprof) and text dumps of the hub's state, like 127.0.0.1:6060; "+
		"they have no authentication, so reach them by kubectl port-forward; empty: none")
	f.StringVar(&o.SnapshotDir, "snapshot-dir", "", "folder for a copy of what the hub serves, which a hub that restarts while its API server does not "+
		"answer starts with; it holds TLS keys, so use an emptyDir of medium Memory; empty: none")
	o.faults.bind(f)
}

// Validate returns all faults together.
func (o *Options) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(isLabel(o.Namespace), "--namespace %q is not the name of a namespace", o.Namespace)
	check(o.Region == "" || isLabel(o.Region), "--region %q: use 1 to 63 lower case letters, digits and '-'", o.Region)
	check(isLabel(o.ClusterSet), "--clusterset %q: use 1 to 63 lower case letters, digits and '-'", o.ClusterSet)
	check(o.Zone == "" || isLabel(o.Zone), "--zone %q: use 1 to 63 lower case letters, digits and '-'", o.Zone)
	check(len(o.xdsNames()) > 0, "--xds-names is empty: name at least one DNS name or address that edges dial")
	for _, name := range o.xdsNames() {
		check(net.ParseIP(name) != nil || isDNSName(name), "--xds-names: %q is neither a DNS name nor an address", name)
	}
	faults = append(faults, o.memberURLFault(), program.CheckAddress("--xds-addr", o.XDSAddr), optionalAddressFault("--member-api-addr", o.MemberAddr),
		optionalAddressFault("--metrics-addr", o.MetricsAddr), optionalAddressFault("--health-addr", o.HealthAddr))
	faults = append(faults, optionalAddressFault("--gossip-addr", o.GossipAddr), optionalAddressFault("--replica-addr", o.ReplicaAddr))
	if o.GossipPublic != "" {
		faults = append(faults, program.CheckAddress("--gossip-public-address", o.GossipPublic))
	}
	for _, namespace := range o.secretNamespaces() {
		check(isLabel(namespace), "--secret-namespaces: %q is not the name of a namespace", namespace)
	}
	cidrs, err := o.hubCIDRs()
	check(err != nil || len(cidrs) > 0, "--hub-cidrs is empty: name the pod and Service CIDRs of the hub's own cluster, or members could announce its addresses")
	faults = append(faults, err, o.faults.validate())
	check(credentialKinds[o.Credential] != "", "--joining-credential %q: use certificate or token", o.Credential)
	check(o.MaxEdges >= 1 && o.MaxEdges <= 250, "--max-edges %d: use 1 to 250", o.MaxEdges)
	if o.DebugAddr != "" {
		faults = append(faults, program.CheckDebugAddress("--debug-address", o.DebugAddr))
	}
	return errors.Join(faults...)
}

// credentialKinds are the values of --joining-credential.
var credentialKinds = map[string]v1alpha1.CredentialKind{"certificate": v1alpha1.CredentialCertificate, "token": v1alpha1.CredentialServiceAccountToken}

func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

// isDNSName is IsDNS1123Subdomain, which does not limit the labels.
func isDNSName(s string) bool {
	return len(validation.IsDNS1123Subdomain(s)) == 0 && !slices.ContainsFunc(strings.Split(s, "."), func(l string) bool { return !isLabel(l) })
}

// optionalAddressFault is the fault of an address that may be "0", for off.
func optionalAddressFault(flag, address string) error {
	if address == "0" {
		return nil
	}
	return program.CheckAddress(flag, address)
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

// serverNames are the names in the serving certificate: those that edges dial, and agents.
func (o *Options) serverNames() []string {
	names := o.xdsNames()
	if u, err := url.Parse(o.MemberURL); err == nil && u.Hostname() != "" && !slices.Contains(names, u.Hostname()) {
		names = append(names, u.Hostname())
	}
	return names
}

func (o *Options) memberURLFault() error {
	if o.MemberURL == "" {
		return nil
	}
	if u, err := url.Parse(o.MemberURL); err != nil || u.Scheme != "https" || u.Path != "" || u.RawQuery != "" || u.User != nil ||
		net.ParseIP(u.Hostname()) == nil && !isDNSName(u.Hostname()) {
		return fmt.Errorf("--member-api-url %q is not like https://hub.example:18001", o.MemberURL)
	}
	if o.MemberAddr == "0" {
		return errors.New("--member-api-url is set, and --member-api-addr is 0: agents would be told of an API that is not served")
	}
	return nil
}

// gossips says whether the hub takes part in gossip.
func (o *Options) gossips() bool { return o.GossipAddr != "0" }

// agents is what agents are told.
func (o *Options) agents() registration.MemberAPIPlace {
	place := registration.MemberAPIPlace{URL: o.MemberURL, ClusterSet: o.ClusterSet}
	if !o.gossips() {
		return place
	}
	place.Gossip = o.GossipPublic
	if u, err := url.Parse(o.MemberURL); err == nil && u.Port() == "18001" && place.Gossip == "" {
		place.Gossip = net.JoinHostPort(u.Hostname(), "18002")
	}
	return place
}

// replicaAddr is empty where there are no other replicas.
func (o *Options) replicaAddr() string {
	if o.ReplicaAddr == "0" {
		return ""
	}
	return o.ReplicaAddr
}

func (o *Options) secretNamespaces() []string { return list(o.SecretSpaces) }

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

func (o *Options) place() fleet.Place { return fleet.Place{Region: o.Region, Zone: o.Zone} }
