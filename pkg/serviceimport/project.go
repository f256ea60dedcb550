package serviceimport

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/serviceexport"
)

// A ServiceImport with label LabelManagedBy and value ManagedBy was made by
// Crossway, which may change and delete it.
const (
	LabelManagedBy = v1alpha1.LabelManagedBy
	ManagedBy      = v1alpha1.ManagedBy
)

// Projection is the ServiceImport of a FleetService, and the conditions for its
// status.
type Projection struct {
	Import     mcsv1beta1.ServiceImport
	Conditions []condition.Condition
}

// Project returns the ServiceImport of a FleetService, for any cluster that has
// its namespace. It has no IPs: nothing allocates addresses for the whole fleet
// yet. Exported labels cannot replace Crossway's own.
func Project(f v1alpha1.FleetService) Projection {
	spec := f.Spec.DeepCopy()
	labels, _ := serviceexport.Labels(spec.Labels) // checked again: a compromised member may write anything to the hub
	annotations, _ := serviceexport.Annotations(spec.Annotations)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelManagedBy] = ManagedBy
	p := Projection{
		Import: mcsv1beta1.ServiceImport{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: spec.Service.Namespace, Name: spec.Service.Name,
				Labels: labels, Annotations: annotations,
			},
			Spec: mcsv1beta1.ServiceImportSpec{
				Ports:                 []mcsv1beta1.ServicePort{},
				Type:                  mcsv1beta1.ServiceImportType(spec.Type),
				SessionAffinity:       spec.SessionAffinity,
				SessionAffinityConfig: spec.SessionAffinityConfig,
				IPFamilies:            slices.Clone(spec.IPFamilies),
				InternalTrafficPolicy: spec.InternalTrafficPolicy,
				TrafficDistribution:   spec.TrafficDistribution,
			},
			Status: mcsv1beta1.ServiceImportStatus{EndpointSliceObjects: mcsv1beta1.EndpointSliceObjectsAbsent},
		},
		Conditions: []condition.Condition{condition.ImportReady()},
	}
	for _, port := range spec.Ports {
		p.Import.Spec.Ports = append(p.Import.Spec.Ports, mcsv1beta1.ServicePort{
			Name: port.Name, Protocol: port.Protocol, Port: port.Port, AppProtocol: validAppProtocol(port.AppProtocol),
		})
	}
	for _, c := range spec.Clusters {
		p.Import.Status.Clusters = append(p.Import.Status.Clusters, mcsv1beta1.ClusterStatus{Cluster: c.Name})
	}
	return p
}

// validAppProtocol is the appProtocol of a port where a Service may have it; nil: it
// may not. One port that no Service can have would keep the IPs of the whole import
// from all members, and a member may write any port to the hub.
func validAppProtocol(p *string) *string {
	if p != nil && len(validation.IsQualifiedName(*p)) > 0 {
		return nil
	}
	return p
}

// Ours tells whether Crossway made a ServiceImport.
func Ours(i *mcsv1beta1.ServiceImport) bool { return i.Labels[LabelManagedBy] == ManagedBy }
