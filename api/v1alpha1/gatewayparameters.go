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
}

// GatewayParametersList is a list of GatewayParameters.
//
// +kubebuilder:object:root=true
type GatewayParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GatewayParameters `json:"items"`
}
