package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MemberExport is one member's export of one service. The member's agent writes it
// as <service>.<namespace> into namespace member-<cluster>. That namespace, never
// the content, decides which cluster the export is from.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=crossway
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.service.name`
// +kubebuilder:printcolumn:name="In",type=string,JSONPath=`.spec.service.namespace`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Conflict",type=string,JSONPath=`.status.conditions[?(@.type=="Conflict")].reason`
// +kubebuilder:printcolumn:name="Exported",type=date,JSONPath=`.spec.exportedAt`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.split('.') == [self.spec.service.name, self.spec.service.namespace]",message="name must be <service>.<namespace> of spec.service"
type MemberExport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   MemberExportSpec   `json:"spec"`
	Status MemberExportStatus `json:"status,omitempty"`
}

// ServiceReference is the name of a Service, the same in all clusters.
type ServiceReference struct {
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
}

// ServiceType is how an import is reached (KEP-1645).
//
// +kubebuilder:validation:Enum=ClusterSetIP;Headless
type ServiceType string

const (
	ClusterSetIP ServiceType = "ClusterSetIP"
	Headless     ServiceType = "Headless"
)

// ServiceProperties are the properties of an exported Service that KEP-1645
// merges, without ports.
type ServiceProperties struct {
	// Type of the service.
	// +kubebuilder:default=ClusterSetIP
	Type ServiceType `json:"type"`

	// +kubebuilder:validation:Enum=ClientIP;None
	// +optional
	SessionAffinity corev1.ServiceAffinity `json:"sessionAffinity,omitempty"`
	// +optional
	SessionAffinityConfig *corev1.SessionAffinityConfig `json:"sessionAffinityConfig,omitempty"`

	// IPFamilies of the Service, in its order.
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:Enum=IPv4;IPv6
	// +listType=atomic
	// +optional
	IPFamilies []corev1.IPFamily `json:"ipFamilies,omitempty"`

	// +kubebuilder:validation:Enum=Cluster;Local
	// +optional
	InternalTrafficPolicy *corev1.ServiceInternalTrafficPolicy `json:"internalTrafficPolicy,omitempty"`
	// +kubebuilder:validation:MaxLength=63
	// +optional
	TrafficDistribution *string `json:"trafficDistribution,omitempty"`

	// Labels of the ServiceImport, from ServiceExport.spec.exportedLabels.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 316 && size(self[k]) <= 63)",message="a label has at most 316 characters in its key and 63 in its value"
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations of the ServiceImport, from ServiceExport.spec.exportedAnnotations.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.map(k, size(k) + size(self[k])).sum() <= 16384",message="exported annotations have at most 16 KiB in all"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ServicePort is one port of a service.
type ServicePort struct {
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Name string `json:"name,omitempty"`
	// +kubebuilder:validation:Enum=TCP;UDP;SCTP
	// +kubebuilder:default=TCP
	Protocol corev1.Protocol `json:"protocol"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// +kubebuilder:validation:MaxLength=255
	// +optional
	AppProtocol *string `json:"appProtocol,omitempty"`
}

// MemberExportSpec has everything that the hub needs of an export to merge it.
type MemberExportSpec struct {
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="service cannot change; delete the export and make another"
	Service ServiceReference `json:"service"`
	// ExportedAt is the creationTimestamp of the ServiceExport. It is the member's own
	// word, and orders only exports that the hub saw at the same time.
	ExportedAt metav1.Time `json:"exportedAt"`
	// ExportUID is the UID of the ServiceExport. An export that is pushed again under
	// the same UID keeps its place among the exports of the service.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	ExportUID string `json:"exportUID,omitempty"`

	ServiceProperties `json:",inline"`

	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Ports []ServicePort `json:"ports,omitempty"`
}

// MemberExportStatus has the hub's conditions, which the agent copies to the
// ServiceExport, and the hub's record of the export. Members cannot write it.
type MemberExportStatus struct {
	// Conditions: Ready, Conflict (KEP-1645), EndpointsAdmitted.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Seen is the hub's record of the export. The FleetService has the other copy.
	// +optional
	Seen *SeenExport `json:"seen,omitempty"`
}

// SeenExport is what the hub recorded of an export when it merged it last.
type SeenExport struct {
	ExportRecord `json:",inline"`

	// Generation of the MemberExport that was merged.
	Generation int64 `json:"generation"`
	// Differs are the properties in which that generation had another value than the
	// import, like "type" or "tcp-80.name".
	// +listType=atomic
	// +optional
	Differs []string `json:"differs,omitempty"`
}

// ExportRecord is the place of an export among the exports of its service.
type ExportRecord struct {
	// ExportUID is the UID of the ServiceExport.
	// +optional
	ExportUID string `json:"exportUID,omitempty"`
	// Sequence is the order in which the hub first saw the exports of the service: the
	// lower is the senior.
	// +kubebuilder:validation:Minimum=1
	Sequence int64 `json:"sequence"`
}

// MemberExportList is a list of MemberExports.
//
// +kubebuilder:object:root=true
type MemberExportList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MemberExport `json:"items"`
}
