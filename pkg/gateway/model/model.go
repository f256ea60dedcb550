package model

import (
	"net/netip"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Model is everything that all edges of the fleet are to serve. Every slice is
// sorted by its key, so equal configurations are deeply equal.
type Model struct {
	Listeners   []Listener     // by Gateway, then Port
	Assignments []Assignment   // by Key
	Secrets     []Secret       // by Name
	Imports     []ImportPolicy // by Backend; how requests for each import are distributed
}

// Protocol is what a Listener speaks to clients.
type Protocol string

const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
	TCP   Protocol = "TCP"
	TLS   Protocol = "TLS" // chains are selected by SNI; those without Secrets pass TLS through
	UDP   Protocol = "UDP"
)

// Listener is one port of one Gateway, on the Gateway's address in every pool
// that it is exposed in. Gateway API listeners of one port are merged into it.
type Listener struct {
	Gateway   fleet.ObjectName
	Port      uint16
	Protocol  Protocol
	Addresses []Address // by Pool; empty while none is allocated
	Chains    []Chain   // HTTP: exactly one, without ServerName and TLS. HTTPS: one per listener hostname. UDP: none
	// UDP forwards the datagrams of a UDP port. lbsync/envoy has no proxy for it yet.
	UDP *L4Forward
}

// Address is where one EdgePool serves the Gateway.
type Address struct {
	Pool    string
	Address netip.Addr
}

// Chain serves one TLS server name of an HTTPS or TLS port, or a whole HTTP or
// TCP port. It either serves HTTP (Hosts, Misdirected) or forwards TCP, unless
// it rejects all connections.
type Chain struct {
	// Name is unique within the listener: the Gateway API listener's name
	// (the first of them in an HTTP chain, which merges all of the port).
	Name string
	// ServerName is the SNI that selects the chain: exact, "*.example.com", or
	// empty for any. Always empty in an HTTP chain.
	ServerName string
	// Secrets names what certificates the chain serves; empty in an HTTP chain.
	Secrets []string
	// Reject closes every connection: the listener is broken, and its server
	// name must not fall through into a wider chain (fail closed).
	Reject bool
	// Hosts are the virtual hosts, by Hostname. The host of a listener without
	// routes is present without rules, so that it answers 404 and no wider
	// host takes its requests (listener isolation).
	Hosts []VirtualHost
	// Misdirected are hostnames answered 421: other chains of this port serve
	// them (RFC 9110 section 15.5.20). Sorted; "*" for all that Hosts lack.
	Misdirected []string
	// TCP forwards connections. Nil: the chain serves HTTP. With Secrets, TLS ends
	// at the edge; without, its bytes are passed on.
	TCP *L4Forward
}

// L4Forward sends connections or datagrams to Targets in proportion to their weights.
type L4Forward struct {
	Origin  Origin
	Targets []L4Target // sum of weights > 0
}

// L4Target is an assignment with its part. An empty Assignment is the part of
// backends that cannot be used: its connections are closed.
type L4Target struct {
	Assignment string
	Weight     uint32
}

// VirtualHost is one hostname and its rules in the order in which they are tried.
type VirtualHost struct {
	Hostname string // lower case; exact, "*.example.com" (any number of labels), or "*"
	Rules    []Rule // in Gateway API precedence; no match is 404
}

// RouteName names a route in logs and metrics: an HTTPRoute by its name alone,
// any other route with its kind in front.
func RouteName(route fleet.RouteRef) string {
	if route.Kind == "HTTPRoute" {
		return route.Name.String()
	}
	return route.String()
}

// Origin says which rule of which route something comes from.
type Origin struct {
	Route      fleet.RouteRef
	Generation int64
	Rule       int    // index in spec.rules
	Name       string // spec.rules[].name, if any
	Match      int    // index in spec.rules[].matches
}

// Rule is one match and what happens to the requests that meet it. Exactly one
// of Forward, Redirect and Respond is set.
type Rule struct {
	Origin   Origin
	Match    Match
	Forward  *Forward
	Redirect *Redirect
	Respond  *Respond

	Request        HeaderChanges
	Response       HeaderChanges
	Rewrite        *Rewrite
	Mirrors        []Mirror
	Timeout        *time.Duration // whole request; nil: none, 0: none
	BackendTimeout *time.Duration // each try; nil or 0: none. Its assignments have it, too
}

// PathKind is how a path is compared.
type PathKind string

const (
	PathExact  PathKind = "Exact"
	PathPrefix PathKind = "PathPrefix" // whole elements: /a matches /a and /a/b, not /ab
	PathRegex  PathKind = "RegularExpression"
)

// PathMatch compares the request's path, without its query.
type PathMatch struct {
	Kind  PathKind
	Value string
}

// ValueMatch compares a header or a query parameter: the whole value, exactly
// or by a regular expression (RE2).
type ValueMatch struct {
	Name  string // headers: lower case
	Value string
	Regex bool
}

// Match is met when all its parts are.
type Match struct {
	Path    PathMatch
	Method  string // empty: any
	Headers []ValueMatch
	Query   []ValueMatch
}

// Forward sends requests to Targets in proportion to their weights. One target
// is the common case: backends that need nothing of their own share one
// assignment, in which weights are exact and follow health.
type Forward struct {
	Targets []Target // sum of weights > 0
}

// Target is an assignment with its part of a rule's requests. An empty
// Assignment is the part of backends that cannot be used: it is answered 500.
type Target struct {
	Assignment string
	Weight     uint32
	Request    HeaderChanges
	Response   HeaderChanges
}

// Redirect answers with a Location. Empty fields keep the request's own.
type Redirect struct {
	Scheme     string
	Hostname   string
	Port       uint16 // 0: from Scheme, or the listener's port where Scheme is empty
	Path       *PathChange
	StatusCode int // 301, 302, 303, 307, 308
}

// Respond answers by itself.
type Respond struct {
	StatusCode int
	Body       string
}

// Rewrite changes the request that is sent on.
type Rewrite struct {
	Hostname string
	Path     *PathChange
}

// PathChange replaces the whole path, or the prefix that the rule matched.
type PathChange struct {
	Full   *string
	Prefix *string
}

// HeaderChanges are applied in the order remove, set, add.
type HeaderChanges struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Header is a name (lower case) and a literal value, never a format string.
type Header struct {
	Name  string
	Value string
}

// Mirror sends a copy of Numerator in Denominator requests and ignores its answer.
type Mirror struct {
	Assignment  string
	Numerator   uint32
	Denominator uint32
}

// BackendProtocol is what a backend's port speaks.
type BackendProtocol string

const (
	HTTP1 BackendProtocol = "HTTP1"
	H2C   BackendProtocol = "H2C" // HTTP/2 without TLS by prior knowledge
)

// Assignment is a set of backends that one Envoy cluster answers for. Its Key
// depends on the route and on which backends there are, never on weights: a
// changed weight is an endpoint update, changed backends are a new assignment,
// so that requests never meet the wrong backends half way (make before break).
type Assignment struct {
	Key      string // at most 200 characters, [a-z0-9./-]
	Route    fleet.RouteRef
	Backends []WeightedBackend // in order of Backend, Port; weights sum > 0
	// Fallback are the backends of the rule's other targets, in the same order,
	// which take over from those of Backends that are dead, in proportion to all
	// weights. None has the name of one of Backends. Like weights, they are a
	// matter of endpoints.
	Fallback []WeightedBackend
	Protocol BackendProtocol
	Timeout  time.Duration  // of each try; 0: none
	Policy   *ClusterPolicy // nil: none
}

// WeightedBackend is one backend's part of an assignment.
type WeightedBackend struct {
	Backend  fleet.Backend
	Port     int32  // of the import or Service
	PortName string // finds the port in the backend's EndpointSlices
	// Clusters that offer the port, sorted; nil: all, as for a Service of the hub.
	Clusters  []fleet.ClusterName
	Weight    uint32
	Unchecked bool // the policy's HealthCheck is for the assignment's other backends
}

// ClusterPolicy are the settings of an Envoy cluster that policies may change.
// It goes from the reader of a policy to the cluster as one value: what is
// between them compares it whole, and knows none of its fields but HealthCheck.
type ClusterPolicy struct {
	HealthCheck *HealthCheck // of those backends that are not Unchecked; nil: none
}

// Check is the HealthCheck; nil where there is no policy or none in it.
func (p *ClusterPolicy) Check() *HealthCheck {
	if p == nil {
		return nil
	}
	return p.HealthCheck
}

// HealthCheck probes every endpoint from every edge (BackendPolicy).
type HealthCheck struct {
	Interval time.Duration
	Timeout  time.Duration
	Path     string // HTTP GET, healthy on 200; empty: TCP connect
}

// Mode is how demand meets capacity.
type Mode string

const (
	Waterfall Mode = "Waterfall" // nearest region first, overflow to the next
	Spray     Mode = "Spray"     // all members of the world in proportion to capacity
)

// ImportPolicy is the policy of one import. Imports without a policy have no rate
// and Waterfall.
type ImportPolicy struct {
	Backend fleet.Backend
	Rate    float64 // requests per second that one endpoint takes; 0: no limit
	Mode    Mode
	// Policy is the BackendPolicy that sets this, at Generation. Its status reports when
	// the import overflows.
	Policy     fleet.ObjectName
	Generation int64
}

// Secret is a certificate with its key. It redacts itself when printed.
type Secret struct {
	Name        string // "namespace/name"
	Certificate []byte // PEM chain
	PrivateKey  []byte // PEM
}

// String hides the key.
func (s Secret) String() string { return "Secret " + s.Name + " [redacted]" }

// GoString hides the key from %#v, too.
func (s Secret) GoString() string { return s.String() }
