package serviceexport

import (
	"fmt"
	"time"
)

// fewWithdrawals is how many exports an agent withdraws at its start without asking:
// what somebody may well have deleted while no agent ran.
const fewWithdrawals = 3

// PausesWithdrawal tells whether an agent that starts must ask before it withdraws:
// its cluster lacks that many of the exports that the hub has of it. More than half,
// and more than a few, look like the loss of the cluster's etcd. An outage of its API
// server must not cost the service in the rest of the fleet.
func PausesWithdrawal(lacking, onHub int) bool {
	return lacking > fewWithdrawals && 2*lacking > onHub
}

// PauseName names a pause, for people and for their answer: 11-of-12-20260101T080000Z.
func PauseName(lacking, onHub int, at time.Time) string {
	return fmt.Sprintf("%d-of-%d-%s", lacking, onHub, at.UTC().Format("20060102T150405Z"))
}
