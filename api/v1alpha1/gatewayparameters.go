package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
}

// GatewayParametersList is a list of GatewayParameters.
//
// +kubebuilder:object:root=true
type GatewayParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayParameters `json:"items"`
}
