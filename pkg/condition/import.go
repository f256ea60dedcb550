package condition

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
)

// ImportReady says that a ServiceImport can be used by routes.
func ImportReady() Condition {
	return Condition{
		Type: string(mcsv1beta1.ServiceImportConditionReady), Status: metav1.ConditionTrue,
		Reason: string(mcsv1beta1.ServiceImportReasonReady), Message: "routes may point at this import",
	}
}

// ImportNotOurs is what Crossway says (as an event, for the status is its
// owner's) of a ServiceImport that somebody else made where Crossway would
// have put its own.
func ImportNotOurs(service fleet.ServiceName) string {
	return fmt.Sprintf("ServiceImport %q was not made by Crossway, which leaves it as it is; delete it, and Crossway puts the fleet's import in its place", service)
}
