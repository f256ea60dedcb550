package model

import (
	"net/netip"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Model is the configuration that all edges of the fleet serve. Every slice is
// sorted by its key, so equal configurations are deeply equal.
type Model struct {
	Listeners   []Listener     // by Gateway, then Port
	Assignments []Assignment   // by Key
	Secrets     []Secret       // by Name
	Imports     []ImportPolicy // by Backend; how requests for each import are distributed
}

// Protocol is the protocol between clients and a Listener.
type Protocol string

const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
	TCP   Protocol = "TCP"
	TLS   Protocol = "TLS" // chains are selected by SNI; a chain without Secrets passes TLS through
	UDP   Protocol = "UDP"
)

// Listener is one port of one Gateway, on the Gateway's address in every EdgePool
// that serves it. It merges the Gateway API listeners of the port.
type Listener struct {
	Gateway   fleet.ObjectName
	Port      uint16
	Protocol  Protocol
	Addresses []Address // by Pool; empty while none is allocated
	Clients   ClientSettings
	Chains    []Chain // HTTP: exactly one, without ServerName and TLS. HTTPS: one per listener hostname. UDP: none
	// UDP forwards the datagrams of a UDP port. lbsync/envoy has no proxy for it yet.
	UDP *L4Forward
}

// ClientSettings are what the owner of a Gateway says of its clients. A change
// closes the connections of all of them.
type ClientSettings struct {
	TrustedHops   uint32        // proxies in front that add to X-Forwarded-For
	ProxyProtocol bool          // connections begin with a PROXY header
	IdleTimeout   time.Duration // of a connection without a request; 0: the default

	RefuseHTTP10 bool
	HTTP10Host   string      // of requests of HTTP/1.0 without a host; empty: the server name, or the address
	Underscores  Underscores // headers whose name has one
	MaxHeaderKiB uint32      // of all headers of a request; 0: the default
	MaxHeaders   uint32      // of a request; 0: the default
	// OwnRequestIDs: the client's x-request-id is replaced.
	OwnRequestIDs bool
	// HideHost: no x-forwarded-host where a rule rewrites the host.
	HideHost       bool
	EscapedSlashes EscapedSlashes // %2F and %5C in paths
	MergeSlashes   bool           // // in paths
}

// Underscores is what becomes of headers whose name has an underscore.
type Underscores string

const (
	AllowUnderscores  Underscores = "" // unless the name is that of an edge or a filter but for '-'
	DropUnderscores   Underscores = "Drop"
	RefuseUnderscores Underscores = "Refuse"
)

// EscapedSlashes is what becomes of %2F and %5C in paths.
type EscapedSlashes string

const (
	KeepEscapedSlashes     EscapedSlashes = ""
	RedirectEscapedSlashes EscapedSlashes = "Redirect"
	UnescapeSlashes        EscapedSlashes = "Unescape"
	RefuseEscapedSlashes   EscapedSlashes = "Refuse"
)

// Address is the Gateway's address in one EdgePool.
type Address struct {
	Pool    string
	Address netip.Addr
}

// Chain serves one TLS server name of an HTTPS or TLS port, or a whole HTTP or
// TCP port. It either serves HTTP (Hosts, Misdirected) or forwards TCP, unless
// it rejects all connections.
type Chain struct {
	// Name is unique within the listener: the name of the Gateway API listener. An
	// HTTP chain merges all listeners of the port and has the name "http".
	Name string
	// ServerName is the SNI that selects the chain: exact, "*.example.com", or
	// empty for any. Always empty in an HTTP chain.
	ServerName string
	// Secrets are the names of the chain's certificates; empty in an HTTP chain.
	Secrets []string
	// Reject closes every connection: the listener is broken, and connections for
	// its server name must not fall through to a wider chain (fail closed).
	Reject bool
	// Hosts are the virtual hosts, by Hostname. A listener without routes has a host
	// without rules, so that its requests are answered 404 and do not fall through
	// to a wider host (listener isolation).
	Hosts []VirtualHost
	// Misdirected are the hostnames that are answered 421, because other chains of
	// this port serve them (RFC 9110 section 15.5.20). Sorted; "*" is every hostname
	// that is not in Hosts.
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

// L4Target is an assignment with its weight. An empty Assignment stands for
// unusable backends: their connections are closed.
type L4Target struct {
	Assignment string
	Weight     uint32
}

// VirtualHost is one hostname and its rules in precedence order.
type VirtualHost struct {
	Hostname string // lower case; exact, "*.example.com" (any number of labels), or "*"
	Rules    []Rule // in Gateway API precedence
	// Wider are rules of wider Hosts of the chain that serve what none of Rules matches,
	// the narrowest first. What no rule matches is answered 404.
	Wider []WiderRules
}

// WiderRules are rules of a wider host, in precedence order: all of them, in the same
// memory, or those of some of its routes.
type WiderRules struct {
	Hostname string
	Rules    []Rule
}

// RouteName names a route in logs and metrics: an HTTPRoute by its name alone,
// any other route with its kind in front.
func RouteName(route fleet.RouteRef) string {
	if route.Kind == "HTTPRoute" {
		return route.Name.String()
	}
	return route.String()
}

// Origin is the match of a route that a Rule was made of.
type Origin struct {
	Route      fleet.RouteRef
	Generation int64
	Rule       int    // index in spec.rules
	Name       string // spec.rules[].name, if any
	Match      int    // index in spec.rules[].matches
}

// Rule is one match and the action for the requests that it selects. Exactly one
// of Forward, Redirect and Respond is set.
type Rule struct {
	Origin   Origin
	Match    Match
	Forward  *Forward
	Redirect *Redirect
	Respond  *Respond

	Request  HeaderChanges
	Response HeaderChanges
	Rewrite  *Rewrite
	Mirrors  []Mirror
	// Lenders are the namespaces of Forward's and Mirrors' backends that are not the
	// route's own, sorted.
	Lenders        []string
	Timeout        *time.Duration // whole request; nil: none, 0: none
	BackendTimeout *time.Duration // each try; nil or 0: none. Also Timeout of the rule's assignments
}

// PathKind is the way in which a path is compared.
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

// Match selects the requests that satisfy all its parts.
type Match struct {
	Path    PathMatch
	Method  string // empty: any
	Headers []ValueMatch
	Query   []ValueMatch
}

// Forward sends requests to Targets in proportion to their weights. One target is
// the common case: backends without filters share one assignment, in which
// weights are exact and follow health.
type Forward struct {
	Targets []Target // sum of weights > 0
}

// Target is an assignment with its weight among a rule's targets. An empty
// Assignment stands for unusable backends: their requests are answered 500.
type Target struct {
	Assignment string
	Weight     uint32
	Request    HeaderChanges
	Response   HeaderChanges
}

// Redirect is a response with a Location. Empty fields keep the request's values.
type Redirect struct {
	Scheme     string
	Hostname   string
	Port       uint16 // 0: from Scheme, or the listener's port where Scheme is empty
	Path       *PathChange
	StatusCode int // 301, 302, 303, 307, 308
}

// Respond is a fixed response.
type Respond struct {
	StatusCode int
	Body       string
}

// Rewrite changes the request that is forwarded.
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

// Mirror sends a copy of Numerator of Denominator requests and ignores the response.
type Mirror struct {
	Assignment  string
	Numerator   uint32
	Denominator uint32
}

// BackendProtocol is the protocol of a backend's port.
type BackendProtocol string

const (
	HTTP1 BackendProtocol = "HTTP1"
	H2C   BackendProtocol = "H2C" // HTTP/2 without TLS by prior knowledge
)

// Assignment is the set of backends of one Envoy cluster. Its Key depends on the
// route and its backends, never on weights. A changed weight is an endpoint
// update. Changed backends are a new assignment, so that requests never reach the
// wrong backends during a change (make before break).
type Assignment struct {
	Key      string // at most 200 characters, [a-z0-9./-]
	Route    fleet.RouteRef
	Backends []WeightedBackend // in order of Backend, Port; weights sum > 0
	// Fallback are the backends of the rule's other targets, in the same order. They
	// take over from dead Backends, in proportion to all weights. None has the name
	// of one of Backends. A changed Fallback is an endpoint update.
	Fallback []WeightedBackend
	Protocol BackendProtocol
	Timeout  time.Duration  // of each try; 0: none
	Policy   *ClusterPolicy // nil: none
}

// WeightedBackend is one backend of an assignment.
type WeightedBackend struct {
	Backend  fleet.Backend
	Port     int32  // of the import or Service
	PortName string // of the port in the backend's EndpointSlices; fleet.PortID in those of members
	// Clusters that offer the port, sorted; nil: all, as for a Service of the hub.
	Clusters  []fleet.ClusterName
	Weight    uint32
	Unchecked bool // the policy's HealthCheck is for the assignment's other backends
}

// ClusterPolicy are the settings of an Envoy cluster that policies may change.
// It is passed from the reader of a policy to the cluster as one value. The code
// between them compares it as a whole and uses no field except HealthCheck.
type ClusterPolicy struct {
	HealthCheck *HealthCheck // of the backends that are not Unchecked; nil: none
	// GatewayErrors is how many answers of 502, 503 or 504 in a row eject an endpoint; 0: answers eject none.
	GatewayErrors int32
}

// Check is the HealthCheck; nil if there is no policy or it has none.
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

// Mode is the way in which requests are distributed among clusters.
type Mode string

const (
	Waterfall Mode = "Waterfall" // nearest region first, overflow to the next
	Spray     Mode = "Spray"     // all members of the fleet in proportion to capacity
)

// ImportPolicy is the policy of one import. Imports without a policy have no rate
// and Waterfall.
type ImportPolicy struct {
	Backend fleet.Backend
	Rate    float64 // requests per second that one endpoint takes; 0: no limit
	Mode    Mode
	// Policy is the BackendPolicy of these settings, at Generation. Its status reports
	// when the import overflows.
	Policy     fleet.ObjectName
	Generation int64
}

// Secret is a certificate with its key. Printing or encoding it does not show the key.
type Secret struct {
	Name        string // "namespace/name"
	Certificate []byte // PEM chain
	PrivateKey  []byte // PEM
}

// String omits the key.
func (s Secret) String() string { return "Secret " + s.Name + " [redacted]" }

// GoString omits the key for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText omits the key for JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
