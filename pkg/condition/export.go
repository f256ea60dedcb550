package condition

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// Types of the conditions of an export, on the ServiceExport in the member and
// on its MemberExport on the hub. The first three are KEP-1645's.
const (
	ExportValid       = string(mcsv1beta1.ServiceExportConditionValid)
	ExportReady       = string(mcsv1beta1.ServiceExportConditionReady)
	ExportConflict    = string(mcsv1beta1.ServiceExportConditionConflict)
	EndpointsExported = "EndpointsExported"
	EndpointsAdmitted = "EndpointsAdmitted"
	MetadataExported  = "MetadataExported"
)

// ExportTypes are all of them: what Crossway writes on a ServiceExport.
// Conditions of other types there are somebody else's.
var ExportTypes = []string{ExportValid, ExportReady, ExportConflict, EndpointsExported, EndpointsAdmitted, MetadataExported}

// listed is how many names or addresses a message spells out before "and n more".
const listed = 5

// ExportIsValid says that the Service of an export is there and can be exported.
func ExportIsValid(service fleet.ServiceName) Condition {
	return Condition{
		Type: ExportValid, Status: metav1.ConditionTrue, Reason: string(mcsv1beta1.ServiceExportReasonValid),
		Message: fmt.Sprintf("Service %q can be exported", service),
	}
}

// ExportNoService says that an export has no Service.
func ExportNoService(service fleet.ServiceName) Condition {
	return Condition{
		Type: ExportValid, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonNoService),
		Message: fmt.Sprintf("Service %q does not exist; create it, or delete this ServiceExport", service),
	}
}

// ExportInvalidType says that a Service is of a type that no cluster can import.
func ExportInvalidType(service fleet.ServiceName, serviceType string) Condition {
	return Condition{
		Type: ExportValid, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonInvalidServiceType),
		Message: fmt.Sprintf("Service %q has type %s, which cannot be exported; export a Service of type ClusterIP, NodePort or LoadBalancer", service, serviceType),
	}
}

// ExportAddressTypes says that slices of the Service have addresses that are
// neither IPv4 nor IPv6, so that none of these leaves the cluster.
func ExportAddressTypes(service fleet.ServiceName, sliceNames []string) Condition {
	return Condition{
		Type: EndpointsExported, Status: metav1.ConditionFalse, Reason: "AddressTypeNotSupported",
		Message: fmt.Sprintf("EndpointSlice %s of Service %q has an addressType other than IPv4 and IPv6, so its endpoints are not exported; give addresses instead of names", andMore(quotedNames(sliceNames)), service),
	}
}

// ExportMetadataInvalid says which exported labels and annotations, by key, no
// object can carry; all others are exported.
func ExportMetadataInvalid(service fleet.ServiceName, labels, annotations []string) Condition {
	var parts []string
	if len(labels) > 0 {
		parts = append(parts, "exportedLabels "+andMore(quotedNames(labels)))
	}
	if len(annotations) > 0 {
		parts = append(parts, "exportedAnnotations "+andMore(quotedNames(annotations)))
	}
	return Condition{
		Type: MetadataExported, Status: metav1.ConditionFalse, Reason: "InvalidMetadata",
		Message: fmt.Sprintf("%s of ServiceExport %q are no valid label or annotation, or are reserved, and are not exported; correct or remove them", strings.Join(parts, " and "), service),
	}
}

// ExportNotReady says that an export is not offered because it is not valid.
func ExportNotReady(service fleet.ServiceName) Condition {
	return Condition{
		Type: ExportReady, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonFailed),
		Message: fmt.Sprintf("Service %q is not exported; condition Valid says why", service),
	}
}

// ExportPending says that the hub has not judged an export yet.
func ExportPending(service fleet.ServiceName) Condition {
	return Condition{
		Type: ExportReady, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonPending),
		Message: fmt.Sprintf("Service %q is on its way to the hub, which has not answered yet", service),
	}
}

// ExportRefused says that the hub's API server does not take the export.
func ExportRefused(service fleet.ServiceName, answer string) Condition {
	return Condition{
		Type: ExportReady, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonFailed),
		Message: fmt.Sprintf("the hub refuses Service %q: %s; correct the Service or the ServiceExport", service, answer),
	}
}

// ExportForbidden says that this cluster may not export to the hub.
func ExportForbidden(cluster fleet.ClusterName, answer string) Condition {
	return Condition{
		Type: ExportReady, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonFailed),
		Message: fmt.Sprintf("cluster %s may not export to the hub: %s; accept MemberCluster %q there", cluster, answer, cluster),
	}
}

// ExportOffered says that an export is part of an import and to how many other
// clusters of the fleet.
func ExportOffered(others int) Condition {
	clusters := "clusters"
	if others == 1 {
		clusters = "cluster"
	}
	return Condition{
		Type: ExportReady, Status: metav1.ConditionTrue, Reason: string(mcsv1beta1.ServiceExportReasonExported),
		Message: fmt.Sprintf("offered to %d other %s", others, clusters),
	}
}

// ExportNotAccepted says that a MemberExport is in a namespace that is not
// an accepted member's, so that it counts for nothing.
func ExportNotAccepted(namespace string) Condition {
	return Condition{
		Type: ExportReady, Status: metav1.ConditionFalse, Reason: "NotAccepted",
		Message: fmt.Sprintf("namespace %q is not that of an accepted MemberCluster, so this export is not offered; accept the MemberCluster, or delete this MemberExport", namespace),
	}
}

// ExportNoConflicts says that all exports of a service agree.
func ExportNoConflicts() Condition {
	return Condition{
		Type: ExportConflict, Status: metav1.ConditionFalse, Reason: string(mcsv1beta1.ServiceExportReasonNoConflicts),
		Message: "all exports of this service agree",
	}
}

// ExportConflicts says what exports of one service disagree about: the reasons
// of KEP-1645, joined by commas, and one message for each disagreement.
func ExportConflicts(reasons, messages []string) Condition {
	return Condition{
		Type: ExportConflict, Status: metav1.ConditionTrue,
		Reason: strings.Join(slices.Compact(slices.Clone(reasons)), ","), Message: strings.Join(messages, ". "),
	}
}

// EndpointsAllAdmitted says that no endpoint of an export was refused.
func EndpointsAllAdmitted(cluster fleet.ClusterName) Condition {
	return Condition{
		Type: EndpointsAdmitted, Status: metav1.ConditionTrue, Reason: "Admitted",
		Message: fmt.Sprintf("MemberCluster %q may announce every endpoint of this export", cluster),
	}
}

// EndpointsRefused says which endpoints of an export never reach an edge or
// another member, and why: refusals are texts like "10.9.0.1 is outside of ...".
func EndpointsRefused(cluster fleet.ClusterName, refusals []string) Condition {
	return Condition{
		Type: EndpointsAdmitted, Status: metav1.ConditionFalse, Reason: "EndpointsRefused",
		Message: fmt.Sprintf("%s; refused endpoints get no traffic: correct the EndpointSlice, or spec.endpointCIDRs of MemberCluster %q on the hub", andMore(refusals), cluster),
	}
}

// andMore joins texts and counts those after the first few.
func andMore(texts []string) string {
	if len(texts) <= listed {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:listed], ", "), len(texts)-listed)
}

func quotedNames(names []string) []string {
	var q []string
	for _, n := range names {
		q = append(q, fmt.Sprintf("%q", n))
	}
	return q
}
