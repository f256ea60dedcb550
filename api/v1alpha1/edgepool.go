package v1alpha1

import (
	"cmp"
	"iter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Exposure is the kind of clients that a Gateway is for.
//
// +kubebuilder:validation:Enum=External;Internal
type Exposure string

const (
	External Exposure = "External"
	Internal Exposure = "Internal"
)

// EdgePool is a set of Envoys (edges) in one region and the addresses that they
// listen on. All of them serve the same Gateways.
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

// EdgePoolSpec is where the edges are and what they serve.
type EdgePoolSpec struct {
	// Region of the edges.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region"`

	// Nearest regions, in the order in which demand overflows to them. All other
	// regions come last, together. A region has one order: if several of its
	// pools have one, that of the oldest pool counts.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=atomic
	// +optional
	Nearest []string `json:"nearest,omitempty"`

	// Exposure of the Gateways that these edges serve.
	// +kubebuilder:default=External
	// +optional
	Exposure Exposure `json:"exposure,omitempty"`

	// Addresses that the edges listen on. Each Gateway gets one of them and keeps
	// it. A Gateway whose address is no longer in any block gets another.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=cidr
	Addresses []AddressBlock `json:"addresses"`

	// RevokedCredentials are IDs of credentials that let no edge in any more, neither
	// by the certificates that were signed for them nor by renewed ones. An ID is in
	// the certificate (serialNumber of its subject) and in status.credentials.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]{10}$`
	// +listType=set
	// +optional
	RevokedCredentials []string `json:"revokedCredentials,omitempty"`
}

// AddressBlock is a block of addresses for Gateways.
type AddressBlock struct {
	// CIDR of the block. Its network and broadcast addresses are not used.
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be a CIDR like 198.18.1.0/24"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).ip().isGlobalUnicast() || cidr(self).ip().isLoopback()",message="cidr must be of addresses that a machine can hold: not unspecified, link-local or multicast"
	CIDR string `json:"cidr"`
}

// EdgePoolStatus is what the hub observes of a pool.
type EdgePoolStatus struct {
	// Edges is the number of connected edges.
	// +optional
	Edges int32 `json:"edges"`
	// Allocations are the addresses of Gateways. A Gateway keeps its address until
	// it is deleted, or until no block of spec.addresses contains the address.
	// +listType=atomic
	// +optional
	Allocations []AddressAllocation `json:"allocations,omitempty"`
	// Credentials with which edges are connected; of many, the 64 that end first.
	// +listType=atomic
	// +optional
	Credentials []EdgeCredential `json:"credentials,omitempty"`
	// Conditions: Ready, CertificatesValid.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// EdgeCredential is what one joining gave out, as connected edges present it.
type EdgeCredential struct {
	// ID of the credential, which renewed certificates keep.
	ID string `json:"id"`
	// CA is the common name of the CA that signed the certificates.
	CA string `json:"ca"`
	// Edges that are connected with such a certificate.
	Edges int32 `json:"edges"`
	// ExpirationTime of the one of these certificates that ends first.
	ExpirationTime metav1.Time `json:"expirationTime"`
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

// NearestOf returns the pool whose spec.nearest counts for a region: the oldest
// pool that has one, or the first by name. nil: no pool has one.
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
