package state

import (
	"testing"
	"time"
)

// Of an edge of another replica each second report is lost. What fails in the reports that come may have reached endpoints before
// them, and so it holds nobody out.
func TestFailuresAfterALostReportHoldNobodyOut(t *testing.T) {
	for step, want := range map[int64]bool{1: true, 2: false} {
		s, heldOut := newFleet(), false
		for i := range int64(8) {
			c, now := NewChanges(), start.Add(time.Duration(step*i)*time.Second)
			c.Words = []Word{{Replica: "hub-a", At: now, Kind: Reported, Edge: EdgeReport{Edge: Edge{Pool: "us", Region: "us", Node: "one"}, Sequence: 1 + step*i, Interval: time.Second,
				Loads: []Load{{Assignment: "a", Interval: time.Second, Localities: []LocalityLoad{{SubZone: "us-west/shop/web", Failed: 10}, {SubZone: "eu-west/shop/web", Issued: 20, Succeeded: 20}}}}}}}
			for _, event := range s.Apply(c) {
				heldOut = heldOut || event.HeldOut
			}
		}
		if heldOut != want {
			t.Errorf("with each %d. report: held out %v", step, heldOut)
		}
	}
}
