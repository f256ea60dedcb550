package traffic

import (
	"testing"

	"crossway.dev/crossway/pkg/fleet"
)

// A move is published when it is urgent or large enough.
func TestSignificantMoves(t *testing.T) {
	shares := func(region string, west, east uint32) RegionShares {
		return RegionShares{Region: region, Shares: []Share{{"us-east", east}, {"us-west", west}}}
	}
	both := []Capacity{{"us-east", "us", 1, 1, 0}, {"us-west", "us", 1, 1, 0}}
	demand := map[string]float64{"us": 99, "eu": 1}
	heldOut := shares("us", 500_000, 500_000)
	heldOut.HeldOut = []fleet.ClusterName{"us-west"}
	dead := shares("us", 500_000, 500_000)
	dead.Dead = []fleet.ClusterName{"us-west"}
	for _, c := range []struct {
		name string
		move Move
		want bool
	}{
		{"nothing changed", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 500_000, 500_000)}}, false},
		{"0.9 % of the requests", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 509_000, 491_000)}}, false},
		{"1.1 %", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 511_200, 488_800)}}, true},
		{"1.1 %, learned", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{shares("us", 511_200, 488_800)}, Learned: true}, false},
		{"half of a region with 1 % of the demand", Move{
			Old: []RegionShares{shares("eu", 500_000, 500_000), shares("us", 500_000, 500_000)},
			New: []RegionShares{shares("eu", 1_000_000, 0), shares("us", 500_000, 500_000)}}, false},
		{"both together", Move{
			Old: []RegionShares{shares("eu", 500_000, 500_000), shares("us", 500_000, 500_000)},
			New: []RegionShares{shares("eu", 1_000_000, 0), shares("us", 506_000, 494_000)}}, true},
		{"a new region", Move{New: []RegionShares{shares("us", 500_000, 500_000)}}, true},
		{"held out", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{heldOut}}, true},
		{"dead", Move{Old: []RegionShares{shares("us", 500_000, 500_000)}, New: []RegionShares{dead}}, true},
		{"0.1 % of us-west, which lost its last endpoint", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", TotalParts}}}}, Members: both[:1]}, true},
		{"0.1 % of us-west, set to scaler 0", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", TotalParts}}}}, Members: []Capacity{both[0], {"us-west", "us", 1, 0, 0}}}, true},
		{"0.1 % of us-west, which is healthy", Move{Old: []RegionShares{shares("us", 1_000, 999_000)},
			New: []RegionShares{{Region: "us", Shares: []Share{{"us-east", TotalParts}}}}}, false},
	} {
		c.move.Demand = demand
		if c.move.Members == nil {
			c.move.Members = both
		}
		if got := c.move.Significant(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
