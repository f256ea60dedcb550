package condition

import (
	"fmt"

	"crossway.dev/crossway/pkg/fleet"
)

// TypeOverflowing is a condition type of a BackendPolicy, set for each import.
const TypeOverflowing = "Overflowing"

// Overflowing says that the demand of a region exceeds the capacity of its nearest
// clusters.
func Overflowing(target fleet.ServiceName) Condition {
	return newCondition(TypeOverflowing, true, "CapacityReached",
		fmt.Sprintf("clients of at least one region ask ServiceImport %q for more than its nearest clusters take, and the rest goes to the next ones; "+
			"add endpoints or raise maxRatePerEndpoint, or leave it so", target))
}

// HasRoom says that the nearest clusters of every region have enough capacity for
// its demand.
func HasRoom() Condition {
	return newCondition(TypeOverflowing, false, "HasRoom",
		"the nearest clusters of every region take all that its clients ask for")
}
