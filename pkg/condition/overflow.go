package condition

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// TypeOverflowing is the condition of a BackendPolicy towards one import.
const TypeOverflowing = "Overflowing"

// Overflowing says that a region's clients ask for more than its nearest clusters take.
func Overflowing(target fleet.ServiceName) Condition {
	return Condition{Type: TypeOverflowing, Status: metav1.ConditionTrue, Reason: "CapacityReached",
		Message: fmt.Sprintf("clients of at least one region ask ServiceImport %q for more than its nearest clusters take, and the rest goes to the next ones; "+
			"add endpoints or raise maxRatePerEndpoint, or leave it so", target)}
}

// HasRoom says that every region's nearest clusters take all that its clients ask for.
func HasRoom() Condition {
	return Condition{Type: TypeOverflowing, Status: metav1.ConditionFalse, Reason: "HasRoom",
		Message: "the nearest clusters of every region take all that its clients ask for"}
}
