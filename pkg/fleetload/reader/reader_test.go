package reader

import (
	"slices"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleetload"
)

// The metrics of a replica say which others it hears, and what it knows of the load.
func TestParse(t *testing.T) {
	says, err := parse(strings.NewReader(`# TYPE crossway_replica_known gauge
crossway_replica_known 2
# TYPE crossway_replica_connected gauge
crossway_replica_connected 1
# TYPE crossway_shares_decided_by gauge
crossway_shares_decided_by{replica="hub-b"} 1
# TYPE crossway_import_demand_requests_per_second gauge
crossway_import_demand_requests_per_second{import="shop/cart",region="us"} 30
`))
	testkit.Must(t, err)
	says.Name = "hub-a"
	if says.DecidedBy != "hub-b" || len(says.Samples) != 1 {
		t.Errorf("says %+v", says)
	}
	if deaf := fleetload.LoadOf([]fleetload.Replica{says, {Name: "hub-b", Known: 2, Connected: 2}}).Deaf; !slices.Equal(deaf, []string{"hub-a hears 1 of 2 others"}) {
		t.Errorf("deaf are %q", deaf)
	}
}
