package condition

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// ImportReady says that routes can use a ServiceImport.
func ImportReady() Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, true, mcsv1beta1.ServiceImportReasonReady,
		"routes may point at this import")
}

// ImportUsable says that pods of a member can use a ServiceImport.
func ImportUsable() Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, true, mcsv1beta1.ServiceImportReasonReady,
		"pods of this cluster may use this import")
}

// ImportPending says that a ServiceImport has no IP yet.
func ImportPending(service fleet.ServiceName) Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, false, mcsv1beta1.ServiceImportReasonPending,
		fmt.Sprintf("the import of %q waits for its IP; if it stays so, the log of the member agent has the API server's answer", service))
}

// ImportServiceTaken says that a Service of somebody else has the name of an
// import's derived Service.
func ImportServiceTaken(service fleet.ServiceName, derived string) Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, false, mcsv1beta1.ServiceImportReasonPending,
		fmt.Sprintf("Service \"%s/%s\" was not made by Crossway, which needs that name for the IP of import %q; delete that Service", service.Namespace, derived, service))
}

// ImportFamilyNotSupported says that this cluster has none of an import's IP families.
func ImportFamilyNotSupported(service fleet.ServiceName, wanted, have []corev1.IPFamily) Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, false, mcsv1beta1.ServiceImportReasonIPFamilyNotSupported,
		fmt.Sprintf("the exports of %q have %s, and this cluster has %s; export a Service with an IP family of this cluster", service, families(wanted), families(have)))
}

func families(all []corev1.IPFamily) string {
	var names []string
	for _, f := range all {
		names = append(names, string(f))
	}
	return strings.Join(names, " and ")
}

// ImportNotOurs is the message about a ServiceImport that another controller or a
// user created under the name of an import of the fleet. It is sent as an event,
// because the status belongs to the object's owner.
func ImportNotOurs(service fleet.ServiceName) string {
	return fmt.Sprintf("ServiceImport %q was not made by Crossway, which leaves it as it is; delete it, and Crossway puts the fleet's import in its place", service)
}

// ImportNotListed is the message about an import that the hub no longer lists,
// although nobody saw it end. It is sent as an event.
func ImportNotListed(service fleet.ServiceName) string {
	return fmt.Sprintf("the hub no longer lists %q, nor most other imports of this cluster, so it may have lost its memory: the import stays; delete this ServiceImport if the service is gone", service)
}
