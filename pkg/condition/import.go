package condition

import (
	"fmt"

	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// ImportReady says that routes can use a ServiceImport.
func ImportReady() Condition {
	return newCondition(mcsv1beta1.ServiceImportConditionReady, true, mcsv1beta1.ServiceImportReasonReady,
		"routes may point at this import")
}

// ImportNotOurs is the message about a ServiceImport that another controller or a
// user created under the name of an import of the fleet. It is sent as an event,
// because the status belongs to the object's owner.
func ImportNotOurs(service fleet.ServiceName) string {
	return fmt.Sprintf("ServiceImport %q was not made by Crossway, which leaves it as it is; delete it, and Crossway puts the fleet's import in its place", service)
}
