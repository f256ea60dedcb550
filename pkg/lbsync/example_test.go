package lbsync_test

import (
	"fmt"
	"net/netip"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// The clients of region us send two thirds of their requests for the import shop/web to us-west, and the others to
// eu-west.
func ExampleAssign() {
	web := fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: "web"}}
	part := func(cluster fleet.ClusterName, region, address string) lbsync.Part {
		return lbsync.Part{Backend: web, Cluster: cluster, Place: fleet.Place{Region: region},
			Endpoints: []fleet.Endpoint{{Cluster: cluster, Address: netip.MustParseAddr(address), Port: 8080, State: fleet.Ready}}}
	}
	load := lbsync.Assign(lbsync.AssignInput{
		Assignment: model.Assignment{Key: "shop/web/1", Backends: []model.WeightedBackend{{Backend: web, Port: 80, Weight: 1}}},
		Region:     "us",
		Parts: func(model.WeightedBackend) []lbsync.Part {
			return []lbsync.Part{part("eu-west", "eu", "10.3.0.1"), part("us-west", "us", "10.1.0.1")}
		},
		Shares: []traffic.BackendShares{{Backend: web, RegionShares: traffic.RegionShares{Region: "us",
			Shares: []traffic.Share{{Cluster: "eu-west", Parts: 333_333}, {Cluster: "us-west", Parts: 666_667}}}}},
	})
	for _, l := range load.Localities {
		fmt.Println(l.Weight, l.SubZone(), l.Endpoints)
	}
	// Output:
	// 333333 eu-west/shop/web [10.3.0.1:8080]
	// 666667 us-west/shop/web [10.1.0.1:8080]
}
