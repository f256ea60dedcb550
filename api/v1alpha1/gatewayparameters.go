package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Scope is the set of regions that serve a Gateway.
//
// +kubebuilder:validation:Enum=Global;Regional
type Scope string

const (
	// Global Gateways are served by every edge of their exposure.
	Global Scope = "Global"
	// Regional Gateways are served by the edges of one region.
	Regional Scope = "Regional"
)

// GatewayParameters are the parameters of a GatewayClass. A Gateway overrides them
// with spec.infrastructure.parametersRef.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=crossway
// +kubebuilder:printcolumn:name="Scope",type=string,JSONPath=`.spec.scope`
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Exposure",type=string,JSONPath=`.spec.exposure`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type GatewayParameters struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec GatewayParametersSpec `json:"spec"`
}

// GatewayParametersSpec is which edges serve a Gateway.
//
// +kubebuilder:validation:XValidation:rule="(self.scope == 'Regional') == has(self.region)",message="scope Regional needs a region, and scope Global has none"
type GatewayParametersSpec struct {
	// +kubebuilder:default=Global
	// +optional
	Scope Scope `json:"scope,omitempty"`
	// Region of a Regional Gateway.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Region string `json:"region,omitempty"`
	// +kubebuilder:default=External
	// +optional
	Exposure Exposure `json:"exposure,omitempty"`
	// Clients says what comes between clients and the edges. A change closes the
	// connections of all clients of the Gateways that have these parameters.
	// +optional
	Clients *ClientSettings `json:"clients,omitempty"`
	// Budgets bound what routes may cost each edge. Those of a Gateway's own
	// parameters count only where they are lower than those of its class.
	// +optional
	Budgets Budgets `json:"budgets,omitempty"`
}

// ClientSettings say what comes between clients and the edges.
type ClientSettings struct {
	// TrustedHops is the number of proxies in front of the edges that add the address
	// of their peer to X-Forwarded-For. Backends get the address that the first of them
	// added as the client's, and the headers of proxies (Forwarded, X-Real-Ip,
	// X-Forwarded-Host and the like) as they come. With 0, the client is the peer of
	// the connection, and those headers are removed.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	// +optional
	TrustedHops int32 `json:"trustedHops,omitempty"`
	// ProxyProtocol says that a load balancer in front begins each connection with a
	// PROXY header (version 1 or 2). Connections without one are closed. Whoever else
	// reaches the edges can invent addresses, so only the load balancer may.
	// +optional
	ProxyProtocol bool `json:"proxyProtocol,omitempty"`
	// IdleTimeout is how long a connection may be open without a request. Raise it
	// above that of a load balancer which reuses connections.
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="idleTimeout must be between 1s and 1h"
	// +optional
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`
	// HTTP10 says what becomes of requests of HTTP/1.0.
	// +optional
	HTTP10 HTTP10Settings `json:"http10,omitempty"`
	// Headers are about the headers of requests.
	// +optional
	Headers HeaderSettings `json:"headers,omitempty"`
	// Paths are about the paths of requests.
	// +optional
	Paths PathSettings `json:"paths,omitempty"`
}

// HTTP10Settings say what becomes of requests of HTTP/1.0, which health checks of
// load balancers and some proxies send.
type HTTP10Settings struct {
	// Action is Serve, or Refuse (answered 426).
	// +kubebuilder:validation:Enum=Serve;Refuse
	// +kubebuilder:default=Serve
	// +optional
	Action string `json:"action,omitempty"`
	// DefaultHost is the host of requests without one. Without DefaultHost, it is the
	// server name of a listener that has TLS and one hostname, and else the Gateway's
	// address, which only routes without hostnames serve.
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:MaxLength=253
	// +optional
	DefaultHost string `json:"defaultHost,omitempty"`
}

// HeaderSettings are about the headers of requests.
type HeaderSettings struct {
	// Underscores says what becomes of headers whose name has an underscore: Allow,
	// Drop (the header) or Refuse (the request, with 400). Many backends do not tell '_'
	// from '-'. So with Allow, a header is dropped all the same if it differs only by
	// that from one that edges or the filters of its route set or remove.
	// +kubebuilder:validation:Enum=Allow;Drop;Refuse
	// +kubebuilder:default=Allow
	// +optional
	Underscores string `json:"underscores,omitempty"`
	// MaxKiB is how large the headers of a request may be together; with more it is
	// answered 431. Edges hold as much for each request whose headers are not complete,
	// and the time to choose a route (budgets) is for 32 KiB.
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=96
	// +kubebuilder:default=32
	// +optional
	MaxKiB int32 `json:"maxKiB,omitempty"`
	// MaxCount is how many headers a request may have; with more it is answered 431.
	// +kubebuilder:validation:Minimum=50
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=100
	// +optional
	MaxCount int32 `json:"maxCount,omitempty"`
	// RequestID says whose X-Request-ID backends and the access log get: Keep (the
	// client's; edges make one where there is none) or Replace (always the edge's).
	// +kubebuilder:validation:Enum=Keep;Replace
	// +kubebuilder:default=Keep
	// +optional
	RequestID string `json:"requestID,omitempty"`
	// ForwardedHost says when backends get the host that the client asked for as
	// X-Forwarded-Host: OnRewrite (where a rule rewrites the host) or Never.
	// +kubebuilder:validation:Enum=OnRewrite;Never
	// +kubebuilder:default=OnRewrite
	// +optional
	ForwardedHost string `json:"forwardedHost,omitempty"`
}

// PathSettings are about the paths of requests. Edges resolve "." and ".." and decode
// %XX of letters, digits, '-', '.', '_' and '~' in any case (RFC 3986 section 6.2.2).
type PathSettings struct {
	// EscapedSlashes says what becomes of %2F and %5C in paths: Keep (backends get
	// them), Redirect (307 to the path with slashes), Unescape (backends get slashes) or
	// Refuse (400). With Keep, a request is answered 403 if the slash could hide from a
	// longer rule of its host that the request is meant for it.
	// +kubebuilder:validation:Enum=Keep;Redirect;Unescape;Refuse
	// +kubebuilder:default=Keep
	// +optional
	EscapedSlashes string `json:"escapedSlashes,omitempty"`
	// DoubleSlashes says what becomes of // in paths: Keep (backends get it, and what is
	// said of Keep above holds) or Merge (into one).
	// +kubebuilder:validation:Enum=Keep;Merge
	// +kubebuilder:default=Keep
	// +optional
	DoubleSlashes string `json:"doubleSlashes,omitempty"`
}

// Budgets bound what routes may cost each edge that serves them, so that no user
// takes memory or time from others. The newest route that goes over a budget is
// refused (Accepted=False, OverBudget); of an edited one, the generation that was
// accepted last is served (PartiallyInvalid). A route that was accepted keeps its place
// until it changes, or until listeners that were added make the routes of its
// namespace dearer than the budget of a namespace.
type Budgets struct {
	// RegexSteps is the largest program of one regular expression, by an estimate
	// that is never below RE2's own count. Default: 1000.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3000
	// +optional
	RegexSteps *int32 `json:"regexSteps,omitempty"`
	// Route is the budget of one route on one Gateway. Defaults: 4096 routes, 128
	// clusters, 16Mi, 5000 microseconds.
	// +optional
	Route Budget `json:"route,omitempty"`
	// Namespace is the budget of all routes of one namespace, on all Gateways; its
	// matchMicroseconds are for each hostname. Defaults: 8192 routes, 1200 clusters,
	// 64Mi, 6000 microseconds.
	// +optional
	Namespace Budget `json:"namespace,omitempty"`
	// Gateway is the budget of all routes of one Gateway; its matchMicroseconds are
	// for each hostname. Rules of wider hostnames that serve what a narrower one leaves
	// have a quarter beside it. Defaults: 65536 routes, 8000 clusters, 512Mi, 8000
	// microseconds.
	// +optional
	Gateway Budget `json:"gateway,omitempty"`
}

// Budget is what routes may cost one edge.
type Budget struct {
	// Routes is the number of Envoy routes: matches times hostnames times ports, and
	// twice that where a rule redirects.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Routes *int32 `json:"routes,omitempty"`
	// Clusters is the number of Envoy clusters that a route may have: each backend of a
	// rule counts, whether it is there or not. Rules with the same backends and
	// timeout count once.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Clusters *int32 `json:"clusters,omitempty"`
	// Memory without endpoints, by an estimate that is never below Envoy's.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`
	// MatchMicroseconds are how long it may take to choose the route of one request,
	// whatever its path and headers are.
	// +kubebuilder:validation:Minimum=0
	// +optional
	MatchMicroseconds *int32 `json:"matchMicroseconds,omitempty"`
}

// GatewayParametersList is a list of GatewayParameters.
//
// +kubebuilder:object:root=true
type GatewayParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayParameters `json:"items"`
}
