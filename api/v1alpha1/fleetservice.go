package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FleetService is the merge of all exports of one service. The hub writes it as
// <service>.<namespace> into namespace crossway-fleet, and every cluster makes a
// ServiceImport of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=crossway
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.service.name`
// +kubebuilder:printcolumn:name="In",type=string,JSONPath=`.spec.service.namespace`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type FleetService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec FleetServiceSpec `json:"spec"`
}

// FleetServiceSpec is the merge of all exports.
type FleetServiceSpec struct {
	Service ServiceReference `json:"service"`

	ServiceProperties `json:",inline"`

	// Ports are the union of all exports' ports.
	// +listType=atomic
	// +optional
	Ports []FleetServicePort `json:"ports,omitempty"`

	// Clusters that export the service, by name.
	// +listType=map
	// +listMapKey=name
	Clusters []ExportingCluster `json:"clusters"`

	// Former are clusters that exported the service and no longer do, by name. If one
	// pushes the same ServiceExport again, it has its place again.
	// +listType=map
	// +listMapKey=name
	// +optional
	Former []ExportingCluster `json:"former,omitempty"`
}

// FleetServicePort is a port and the clusters that back it.
type FleetServicePort struct {
	ServicePort `json:",inline"`
	// Clusters that back the port, by name: those that expose its protocol and number,
	// under any name, with the same appProtocol. Absent: all exporting clusters do.
	// +listType=atomic
	// +optional
	Clusters []string `json:"clusters,omitempty"`
}

// ExportingCluster is a member that exports the service.
type ExportingCluster struct {
	Name         string `json:"name"`
	ExportRecord `json:",inline"`
}

// FleetServiceList is a list of FleetServices.
//
// +kubebuilder:object:root=true
type FleetServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FleetService `json:"items"`
}
