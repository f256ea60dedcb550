package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// BackendPolicy is the capacity of an import's endpoints and the way in which
// requests are distributed over its clusters. Direct attachment (GEP-713): of
// several policies on one target the oldest wins, the others are Conflicted.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=crossway
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.targetRefs[*].name`
// +kubebuilder:printcolumn:name="Rate",type=integer,JSONPath=`.spec.capacity.maxRatePerEndpoint`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.distribution.mode`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Overflowing",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Overflowing")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BackendPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BackendPolicySpec      `json:"spec"`
	Status gatewayv1.PolicyStatus `json:"status,omitempty"`
}

// BackendPolicySpec is the policy.
type BackendPolicySpec struct {
	// TargetRefs are ServiceImports in the policy's namespace.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.group == 'multicluster.x-k8s.io' && t.kind == 'ServiceImport')",message="targetRefs must be ServiceImports (group multicluster.x-k8s.io)"
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, b.name == a.name))",message="targetRefs must differ from each other"
	// +listType=atomic
	TargetRefs []gatewayv1.LocalPolicyTargetReference `json:"targetRefs"`

	// Capacity of the clusters. Without it, load never overflows.
	// +optional
	Capacity *BackendCapacity `json:"capacity,omitempty"`

	// Distribution of requests over clusters.
	// +kubebuilder:default={}
	// +optional
	Distribution Distribution `json:"distribution,omitempty"`

	// HealthCheck has every edge probe every endpoint, in addition to the
	// readiness in Kubernetes and to outlier detection.
	// +optional
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`

	// OutlierDetection ejects endpoints by what they answer. Without it only
	// connections that cannot be made eject an endpoint.
	// +optional
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
}

// BackendCapacity is the capacity of a backend. It is a target, not a circuit
// breaker: when all clusters are full, all exceed it by the same factor.
type BackendCapacity struct {
	// MaxRatePerEndpoint in requests per second. A cluster's capacity is this,
	// times its ready endpoints, times its scaler.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000000
	MaxRatePerEndpoint int32 `json:"maxRatePerEndpoint"`
}

// DistributionMode is the order in which clusters get load.
//
// +kubebuilder:validation:Enum=Waterfall;Spray
type DistributionMode string

const (
	// Waterfall fills the edge's own region first, then the nearest ones.
	Waterfall DistributionMode = "Waterfall"
	// Spray fills all clusters of all regions in proportion to capacity.
	Spray DistributionMode = "Spray"
)

// Distribution of requests over clusters.
type Distribution struct {
	// +kubebuilder:default=Waterfall
	// +optional
	Mode DistributionMode `json:"mode,omitempty"`
}

// HealthCheck probes endpoints.
//
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || !has(self.interval) || duration(self.timeout) <= duration(self.interval)",message="timeout must not be longer than interval"
type HealthCheck struct {
	// Interval between two probes of an endpoint; at least 1s.
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('300s')",message="interval must be 1s to 300s"
	// +optional
	Interval gatewayv1.Duration `json:"interval,omitempty"`
	// Timeout of a probe.
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms')",message="timeout must be at least 10ms"
	// +optional
	Timeout gatewayv1.Duration `json:"timeout,omitempty"`
	// HTTP probes with GET; status 200 is healthy. Without it, a TCP connection
	// is a successful probe.
	// +optional
	HTTP *HTTPHealthCheck `json:"http,omitempty"`
}

// HTTPHealthCheck is an HTTP probe.
type HTTPHealthCheck struct {
	// +kubebuilder:validation:Pattern=`^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*$`
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:default="/"
	// +optional
	Path string `json:"path,omitempty"`
}

// OutlierDetection ejects endpoints by what they answer: for 10s they get no
// requests. While all endpoints of a cluster are ejected, its requests go to the
// other clusters. At most 90 % of a route's endpoints are ejected.
type OutlierDetection struct {
	// ConsecutiveGatewayErrors is how many answers of 502, 503 or 504 in a row
	// eject an endpoint. Clients that can cause such answers can eject endpoints.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	ConsecutiveGatewayErrors int32 `json:"consecutiveGatewayErrors"`
}

// BackendPolicyList is a list of BackendPolicies.
//
// +kubebuilder:object:root=true
type BackendPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackendPolicy `json:"items"`
}
