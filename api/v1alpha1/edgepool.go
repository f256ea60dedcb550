package v1alpha1

import (
	"cmp"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Exposure says whom a gateway is for.
//
// +kubebuilder:validation:Enum=External;Internal
type Exposure string

const (
	External Exposure = "External"
	Internal Exposure = "Internal"
)

// EdgePool is the Envoys of one region and the addresses that they hold. All
// of its edges serve the same Gateways.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=crossway
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Exposure",type=string,JSONPath=`.spec.exposure`
// +kubebuilder:printcolumn:name="Edges",type=integer,JSONPath=`.status.edges`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Nearest",type=string,JSONPath=`.spec.nearest`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="name is part of an edge's identity: at most 63 lower case letters, digits and '-'"
type EdgePool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EdgePoolSpec   `json:"spec"`
	Status EdgePoolStatus `json:"status,omitempty"`
}

// EdgePoolSpec says where the edges are and what they serve.
type EdgePoolSpec struct {
	// Region that the edges are in.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region"`

	// Nearest regions in the order in which demand overflows to them; all
	// others come after, together. A region has one order: where several of its
	// pools name one, the oldest of them decides (see NearestOf).
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=atomic
	// +optional
	Nearest []string `json:"nearest,omitempty"`

	// Exposure of the Gateways that live here.
	// +kubebuilder:default=External
	// +optional
	Exposure Exposure `json:"exposure,omitempty"`

	// Addresses that the edges hold; each Gateway gets one of them, for its life.
	// A Gateway whose address is in no block any more gets another.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=cidr
	Addresses []AddressBlock `json:"addresses"`
}

// AddressBlock is a block of addresses to give to Gateways.
type AddressBlock struct {
	// CIDR; its network and broadcast addresses are not given.
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be a CIDR like 198.18.1.0/24"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().isGlobalUnicast() || cidr(self).ip().isLoopback()",message="cidr must be of addresses that a machine can hold: not unspecified, link-local or multicast"
	CIDR string `json:"cidr"`
}

// EdgePoolStatus is what the hub sees of a pool.
type EdgePoolStatus struct {
	// Edges is how many are connected.
	// +optional
	Edges int32 `json:"edges"`
	// Allocations are the addresses given, by Gateway. Given once, kept for the
	// Gateway's life or until no block of spec.addresses has them.
	// +listType=atomic
	// +optional
	Allocations []AddressAllocation `json:"allocations,omitempty"`
	// Conditions: Ready.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AddressAllocation is one address and the Gateway that has it.
type AddressAllocation struct {
	Gateway GatewayReference `json:"gateway"`
	Address string           `json:"address"`
}

// GatewayReference names a Gateway.
type GatewayReference struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// NearestOf is the pool whose spec.nearest counts for a region: of those that
// name any the oldest, then the first by name. Nil where none does.
func NearestOf(pools iter.Seq[*EdgePool], region string) *EdgePool {
	var first *EdgePool
	for p := range pools {
		if p.Spec.Region == region && len(p.Spec.Nearest) > 0 && (first == nil || cmp.Or(
			p.CreationTimestamp.Compare(first.CreationTimestamp.Time), cmp.Compare(p.Name, first.Name)) < 0) {
			first = p
		}
	}
	return first
}

// EdgePoolList is a list of EdgePools.
//
// +kubebuilder:object:root=true
type EdgePoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EdgePool `json:"items"`
}
