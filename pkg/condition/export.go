package condition

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// ExportTypes are all condition types that Crossway writes on a ServiceExport.
// Conditions of other types there belong to other controllers.
var ExportTypes = []string{ExportValid, ExportReady, ExportConflict, EndpointsExported, EndpointsAdmitted, MetadataExported}

// maxListed is the number of names or addresses that a message lists before "and n more".
const maxListed = 5

// ExportIsValid says that the Service of an export exists and can be exported.
func ExportIsValid(service fleet.ServiceName) Condition {
	return newCondition(ExportValid, true, mcsv1beta1.ServiceExportReasonValid,
		fmt.Sprintf("Service %q can be exported", service))
}

// ExportNoService says that an export has no Service.
func ExportNoService(service fleet.ServiceName) Condition {
	return newCondition(ExportValid, false, mcsv1beta1.ServiceExportReasonNoService,
		fmt.Sprintf("Service %q does not exist; create it, or delete this ServiceExport", service))
}

// ExportInvalidType says that the Service's type cannot be exported.
func ExportInvalidType(service fleet.ServiceName, serviceType string) Condition {
	return newCondition(ExportValid, false, mcsv1beta1.ServiceExportReasonInvalidServiceType,
		fmt.Sprintf("Service %q has type %s, which cannot be exported; export a Service of type ClusterIP, NodePort or LoadBalancer", service, serviceType))
}

// ExportDerived says that the Service of an export is one that Crossway derived from
// an import, which would export the fleet's endpoints to the fleet.
func ExportDerived(service fleet.ServiceName) Condition {
	return newCondition(ExportValid, false, mcsv1beta1.ServiceExportReasonInvalidServiceType,
		fmt.Sprintf("Service %q is derived from a ServiceImport and cannot be exported; export the Service of your own pods", service))
}

// ExportAddressTypes says that EndpointSlices of the Service have addresses that
// are neither IPv4 nor IPv6. Their endpoints are not exported.
func ExportAddressTypes(service fleet.ServiceName, sliceNames []string) Condition {
	return newCondition(EndpointsExported, false, "AddressTypeNotSupported",
		fmt.Sprintf("EndpointSlice %s of Service %q has an addressType other than IPv4 and IPv6, so its endpoints are not exported; give addresses instead of names", andMore(quotedNames(sliceNames)), service))
}

// ExportSlicesRefused says that the hub's API server rejected EndpointSlices of the
// Service, the last of them with this answer. Their endpoints are not exported.
func ExportSlicesRefused(service fleet.ServiceName, cluster fleet.ClusterName, sliceNames []string, answer string) Condition {
	return newCondition(EndpointsExported, false, "SlicesRefused",
		fmt.Sprintf("the hub refuses EndpointSlice %s of Service %q, whose endpoints are not exported: %s; correct the slices, make fewer of them, or raise spec.exports of MemberCluster %q on the hub",
			andMore(quotedNames(sliceNames)), service, answer, cluster))
}

// ExportMetadataInvalid names the exported labels and annotations, by key, that
// are invalid. All others are exported.
func ExportMetadataInvalid(service fleet.ServiceName, labels, annotations []string) Condition {
	var parts []string
	if len(labels) > 0 {
		parts = append(parts, "exportedLabels "+andMore(quotedNames(labels)))
	}
	if len(annotations) > 0 {
		parts = append(parts, "exportedAnnotations "+andMore(quotedNames(annotations)))
	}
	return newCondition(MetadataExported, false, "InvalidMetadata",
		fmt.Sprintf("%s of ServiceExport %q are not valid labels or annotations, or are reserved, and are not exported; correct or remove them", strings.Join(parts, " and "), service))
}

// ExportNotReady says that an export is not offered because it is not valid.
func ExportNotReady(service fleet.ServiceName) Condition {
	return newCondition(ExportReady, false, mcsv1beta1.ServiceExportReasonFailed,
		fmt.Sprintf("Service %q is not exported; condition Valid says why", service))
}

// ExportPending says that the hub has not processed an export yet.
func ExportPending(service fleet.ServiceName) Condition {
	return newCondition(ExportReady, false, mcsv1beta1.ServiceExportReasonPending,
		fmt.Sprintf("Service %q is on its way to the hub, which has not answered yet", service))
}

// ExportRefused says that the hub's API server rejected the export.
func ExportRefused(service fleet.ServiceName, answer string) Condition {
	return newCondition(ExportReady, false, mcsv1beta1.ServiceExportReasonFailed,
		fmt.Sprintf("the hub refuses Service %q: %s; correct the Service or the ServiceExport", service, answer))
}

// ExportForbidden says that this cluster is not allowed to export to the hub.
func ExportForbidden(cluster fleet.ClusterName, answer string) Condition {
	return newCondition(ExportReady, false, mcsv1beta1.ServiceExportReasonFailed,
		fmt.Sprintf("cluster %s may not export to the hub: %s; accept MemberCluster %q there", cluster, answer, cluster))
}

// ExportLimitReached says that the hub has a limit for this cluster's exports that is
// reached.
func ExportLimitReached(cluster fleet.ClusterName, answer string) Condition {
	return newCondition(ExportReady, false, mcsv1beta1.ServiceExportReasonFailed,
		fmt.Sprintf("cluster %s has as many exports as it may: %s; delete others, or raise spec.exports of MemberCluster %q on the hub", cluster, answer, cluster))
}

// ExportOffered says that an export is part of an import, and how many other
// clusters of the fleet have that import.
func ExportOffered(others int) Condition {
	clusters := "clusters"
	if others == 1 {
		clusters = "cluster"
	}
	return newCondition(ExportReady, true, mcsv1beta1.ServiceExportReasonExported,
		fmt.Sprintf("offered to %d other %s", others, clusters))
}

// ExportOfferedInSilence says that an export is part of an import as it was when its
// cluster fell silent. On whose evidence, the MemberCluster says once for all its exports.
func ExportOfferedInSilence(others int, cluster fleet.ClusterName, since time.Time) Condition {
	offered := ExportOffered(others)
	return newCondition(ExportReady, true, offered.Reason,
		fmt.Sprintf("%s as it was: MemberCluster %q is silent since %s, and what changes there is not seen. Nothing of it is taken away; condition Reachable of the MemberCluster says on whose evidence",
			offered.Message, cluster, inUTC(since)))
}

// ExportWithoutHub adds to condition Ready of an export, as the hub said it last, that the hub
// and this cluster's agent have no contact since a time.
func ExportWithoutHub(ready Condition, since time.Time) Condition {
	ready.Message = fmt.Sprintf("%s, when the hub was reached last, at %s. Since then this cluster's agent cannot renew its Lease there: other clusters keep what they have of this export, "+
		"and its changes may not reach them; the log of the member-agent says why", ready.Message, inUTC(since))
	return ready
}

// ExportNotAccepted says that a MemberExport is ignored, because its namespace is
// not that of an accepted member.
func ExportNotAccepted(namespace string) Condition {
	return newCondition(ExportReady, false, "NotAccepted",
		fmt.Sprintf("namespace %q is not that of an accepted MemberCluster, so this export is not offered; accept the MemberCluster, or delete this MemberExport", namespace))
}

// ExportNamespaceNotAllowed says that a member may not export services of a
// namespace, with the line that would allow it.
func ExportNamespaceNotAllowed(cluster fleet.ClusterName, namespace string) Condition {
	return newCondition(ExportReady, false, "NamespaceNotAllowed",
		fmt.Sprintf("MemberCluster %q may not export services of namespace %q, so this export is not offered; the fleet admin allows it on the hub by "+
			"spec.exports.namespaces: [%s], beside those that are there", cluster, namespace, namespace))
}

// ExportSystemNamespace says that no member may export services of a namespace
// that is the system's own.
func ExportSystemNamespace(namespace string) Condition {
	return newCondition(ExportReady, false, "NamespaceNotAllowed",
		fmt.Sprintf("namespace %q is the system's own (kube-*, crossway-* and member-* are), so its services are not offered; move the Service to another namespace", namespace))
}

// ExportNoConflicts says that all exports of a service agree.
func ExportNoConflicts() Condition {
	return newCondition(ExportConflict, false, mcsv1beta1.ServiceExportReasonNoConflicts,
		"all exports of this service agree")
}

// ExportConflicts says that exports of one service disagree. It has the reasons of
// KEP-1645, joined by commas, and one message for each disagreement.
func ExportConflicts(reasons, messages []string) Condition {
	return newCondition(ExportConflict, true, strings.Join(slices.Compact(slices.Clone(reasons)), ","),
		strings.Join(messages, ". "))
}

// EndpointsAllAdmitted says that no endpoint of an export was refused.
func EndpointsAllAdmitted(cluster fleet.ClusterName) Condition {
	return newCondition(EndpointsAdmitted, true, "Admitted",
		fmt.Sprintf("MemberCluster %q may announce every endpoint of this export", cluster))
}

// EndpointsRefused names the endpoints of an export that no edge and no other
// member uses, and why. Refusals are texts like "10.9.0.1 is outside of ...".
func EndpointsRefused(cluster fleet.ClusterName, refusals []string) Condition {
	return newCondition(EndpointsAdmitted, false, "EndpointsRefused",
		fmt.Sprintf("%s; refused endpoints get no traffic: correct the EndpointSlice, or spec.endpointCIDRs of MemberCluster %q on the hub", andMore(refusals), cluster))
}

// EndpointsLeftOut says that endpoints of an export get no traffic because the
// member has too many, and which limits of it there are.
func EndpointsLeftOut(cluster fleet.ClusterName, leftOut, perService, all int) Condition {
	return newCondition(EndpointsAdmitted, false, "TooManyEndpoints",
		fmt.Sprintf("%d endpoints get no traffic, those of the youngest EndpointSlices: MemberCluster %q may have %d of one service (spec.exports.maxEndpointsPerService on the hub) "+
			"and %d of all (spec.exports.maxEndpoints); raise the limit, or export fewer", leftOut, cluster, perService, all))
}

// andMore joins the first texts and adds the number of the others.
func andMore(texts []string) string {
	if len(texts) <= maxListed {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:maxListed], ", "), len(texts)-maxListed)
}

// quoted is a list of quoted names, like `"a", "b"`.
func quoted(names []string) string { return strings.Join(quotedNames(names), ", ") }

func quotedNames(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return quoted
}
