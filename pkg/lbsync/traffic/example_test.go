package traffic_test

import (
	"fmt"

	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// Two pods in each of us and eu take 10 requests per second each, and 30 requests per second arrive in us: two thirds
// stay in us, the others overflow into eu.
func ExampleSplit() {
	shares := traffic.Split(traffic.SplitInput{
		Rate: 10,
		Members: []traffic.Capacity{
			{Cluster: "us-west", Region: "us", Ready: 2, Scaler: 1},
			{Cluster: "eu-west", Region: "eu", Ready: 2, Scaler: 1},
		},
		Regions: []traffic.RegionDemand{
			{Region: "us", Demand: 30},
			{Region: "eu", Demand: 0},
		},
	})
	for _, r := range shares {
		for _, s := range r.Shares {
			fmt.Printf("%s -> %s: %d of %d\n", r.Region, s.Cluster, s.Parts, traffic.TotalParts)
		}
	}
	// Output:
	// eu -> eu-west: 1000000 of 1000000
	// us -> eu-west: 333333 of 1000000
	// us -> us-west: 666667 of 1000000
}
