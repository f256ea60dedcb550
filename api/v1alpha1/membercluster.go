package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MemberCluster is one cluster of the fleet. Its name is the cluster's id
// (KEP-2149); its namespace on the hub is member-<name>.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=crossway
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.conditions[?(@.type=="Ready")].lastTransitionTime`
// +kubebuilder:printcolumn:name="Exports",type=integer,JSONPath=`.status.exports`
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`
// +kubebuilder:printcolumn:name="Drain",type=integer,JSONPath=`.spec.drain.percent`
// +kubebuilder:printcolumn:name="Scaler",type=integer,JSONPath=`.spec.capacity.scaler`,priority=1
// +kubebuilder:printcolumn:name="Credential-End",type=string,JSONPath=`.status.credential.expirationTime`
// +kubebuilder:printcolumn:name="Heard",type=date,JSONPath=`.status.lastHeardTime`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="name is a cluster id: at most 50 characters, lower case letters, digits and '-'"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'hub'",message="name \"hub\" is kept for the hub's own cluster"
type MemberCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MemberClusterSpec   `json:"spec"`
	Status MemberClusterStatus `json:"status,omitempty"`
}

// MemberClusterSpec is what the fleet admin decides about a cluster.
type MemberClusterSpec struct {
	// Accepted gives the cluster's agent access to the hub, which makes a
	// namespace and a Role for it. Exports of a cluster that is not accepted do
	// not count. While it is false nobody is let in. Whether the cluster must
	// join again afterwards depends on whether the hub saw it: to end a
	// credential for good, revoke it.
	// +optional
	Accepted bool `json:"accepted,omitempty"`

	// Region of the cluster. An edge prefers clusters of its own region.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region"`

	// Zone of endpoints whose own zone is unknown.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Zone string `json:"zone,omitempty"`

	// EndpointCIDRs are the ranges of addresses that the cluster may announce.
	// Endpoints outside of them never reach an edge or another member. Without
	// any range, no endpoint does.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="self.all(c, isCIDR(c))",message="endpointCIDRs must be CIDRs like 10.1.0.0/16"
	// +listType=set
	// +optional
	EndpointCIDRs []string `json:"endpointCIDRs,omitempty"`

	// Exports are what the cluster may export to the fleet.
	// +kubebuilder:default={}
	// +optional
	Exports MemberExportRules `json:"exports,omitempty"`

	// Imports are what the cluster may import from the fleet. Absent: services
	// of the namespaces that it may export.
	// +optional
	Imports *MemberImportRules `json:"imports,omitempty"`

	// Local says that the cluster is the hub's own.
	// +optional
	Local bool `json:"local,omitempty"`

	// Capacity of the cluster as a whole.
	// +kubebuilder:default={}
	// +optional
	Capacity MemberCapacity `json:"capacity,omitempty"`

	// RevokedCredentials are the IDs of credentials of this name that end now:
	// whoever has one is refused, also after the cluster was accepted again. A
	// certificate lasts 24 h at most, so an ID may be removed a day later.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]{10}$`
	// +kubebuilder:validation:items:MaxLength=10
	// +listType=set
	// +optional
	RevokedCredentials []string `json:"revokedCredentials,omitempty"`

	// Drain sends the cluster's requests to other clusters, all or a part of
	// them. Absent: none. `crossway drain` writes it.
	// +optional
	Drain *MemberDrain `json:"drain,omitempty"`
}

// NamespacePattern is the name of a namespace, or a pattern in which each * is
// any number of characters.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$`
// +kubebuilder:validation:XValidation:rule="!self.startsWith('kube-') && !self.startsWith('crossway-') && !self.startsWith('member-')",message="namespaces kube-*, crossway-* and member-* are the system's own; none of them is exported or imported"
type NamespacePattern string

// MemberExportRules are what a cluster may export, and how much of it.
type MemberExportRules struct {
	// Namespaces whose services the cluster may export: names, and patterns like
	// team-* ("*": all). None by default. No pattern matches namespaces kube-*,
	// crossway-* and member-*, and only its name matches namespace default.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Namespaces []NamespacePattern `json:"namespaces,omitempty"`

	// MaxExports is how many MemberExports the cluster may have.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +kubebuilder:default=500
	// +optional
	MaxExports int32 `json:"maxExports,omitempty"`

	// MaxEndpointsPerService is how many endpoints of one service count.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +kubebuilder:default=2000
	// +optional
	MaxEndpointsPerService int32 `json:"maxEndpointsPerService,omitempty"`

	// MaxEndpoints is how many endpoints of all its services count.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:default=20000
	// +optional
	MaxEndpoints int32 `json:"maxEndpoints,omitempty"`
}

// MemberImportRules are what a cluster may import.
type MemberImportRules struct {
	// Namespaces whose services the cluster may import: names and patterns, as
	// in exports.namespaces. Empty: none.
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	// +optional
	Namespaces []NamespacePattern `json:"namespaces,omitempty"`
}

// MemberCapacity scales the capacity of all backends in a cluster.
type MemberCapacity struct {
	// Scaler in percent of the cluster's capacity. 0: it gets no request while
	// another cluster has capacity.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=100
	// +optional
	Scaler *int32 `json:"scaler,omitempty"`
}

// MemberDrain is the part of the requests for a cluster that other clusters get.
// It changes steadily from one value to another between two times, by the hub's
// clock.
//
// +kubebuilder:validation:XValidation:rule="has(self.startTime) == has(self.endTime)",message="startTime and endTime belong together; without them percent holds at once"
// +kubebuilder:validation:XValidation:rule="!has(self.startTime) || !has(self.endTime) || self.startTime <= self.endTime",message="endTime must not be before startTime"
type MemberDrain struct {
	// Percent of the requests that other clusters get from endTime on; 100 drains
	// the cluster. Where no other cluster has a ready endpoint of a service, the
	// cluster keeps its requests.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent int32 `json:"percent"`
	// From is the percentage until startTime.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	From int32 `json:"from,omitempty"`
	// StartTime is when the percentage begins to change.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`
	// EndTime is when it has changed.
	// +optional
	EndTime *metav1.Time `json:"endTime,omitempty"`
}

// MemberClusterStatus is what the hub observes of a cluster.
type MemberClusterStatus struct {
	// Exports is the number of the cluster's MemberExports.
	// +optional
	Exports int32 `json:"exports"`
	// Endpoints is the number of its ready endpoints, without refused ones.
	// +optional
	Endpoints int32 `json:"endpoints"`
	// LastHeardTime is when its agent last renewed its Lease. It is written at
	// most every 30 s.
	// +optional
	LastHeardTime *metav1.Time `json:"lastHeardTime,omitempty"`
	// Credential is what the cluster's agent is let in with; absent: nobody is.
	// +optional
	Credential *MemberCredential `json:"credential,omitempty"`
	// JoinRequest is of a cluster that waits until spec.accepted is set.
	// +optional
	JoinRequest *MemberJoinRequest `json:"joinRequest,omitempty"`
	// Conditions: Ready, which sums up the others, Joined, Reachable, ExportsAccepted.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CredentialKind is what an agent authenticates with.
//
// +kubebuilder:validation:Enum=Certificate;ServiceAccountToken
type CredentialKind string

// Kinds of credentials.
const (
	CredentialCertificate         CredentialKind = "Certificate"
	CredentialServiceAccountToken CredentialKind = "ServiceAccountToken"
)

// MemberCredential is what one joining gave out. Renewals keep its ID.
type MemberCredential struct {
	// ID is part of the agent's user name on the hub.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]{10}$`
	ID string `json:"id"`
	// ClusterUID is the UID of the cluster that joined, that of its namespace kube-system.
	// +kubebuilder:validation:MaxLength=64
	ClusterUID string `json:"clusterUID"`
	// Kind of the credential.
	Kind CredentialKind `json:"kind"`
	// IssuedTime is when it was first given out.
	IssuedTime metav1.Time `json:"issuedTime"`
	// ExpirationTime is when the certificate ends that was issued last. Tokens do not say it.
	// +optional
	ExpirationTime *metav1.Time `json:"expirationTime,omitempty"`
}

// MemberJoinRequest is what a cluster asked for that waits.
type MemberJoinRequest struct {
	// ID is that of the credential which the cluster would have.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]{10}$`
	ID string `json:"id"`
	// ClusterUID is the UID of the cluster that asks, that of its namespace
	// kube-system. Compare it before you accept.
	// +kubebuilder:validation:MaxLength=64
	ClusterUID string `json:"clusterUID"`
	// EndpointCIDRs are the ranges that it proposes for spec.endpointCIDRs.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +optional
	EndpointCIDRs []string `json:"endpointCIDRs,omitempty"`
	// RequestedTime is when it asked.
	RequestedTime metav1.Time `json:"requestedTime"`
	// CSR is the name of its CertificateSigningRequest.
	// +kubebuilder:validation:MaxLength=253
	CSR string `json:"csr"`
}

// MemberClusterList is a list of MemberClusters.
//
// +kubebuilder:object:root=true
type MemberClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MemberCluster `json:"items"`
}
