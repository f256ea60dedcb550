package endpoints

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/pkg/gateway/model"
)

// One changed slice until its assignments are handed to the pools: 10, 100 and 1000 imports with 150 endpoints in three
// clusters, a route each, two regions.
func BenchmarkSlice(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f, slices := benchFixture(b, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s := slices[i%n][i/n%2]
				f.slice(s)
				f.run()
				i++
			}
			if f.edges.calls < b.N {
				b.Fatal("published nothing")
			}
		})
	}
}

// benchFixture gives, for each import, two forms of us-west's slice that differ by one address.
func benchFixture(b *testing.B, n int) (*fixture, [][2]*discoveryv1.EndpointSlice) {
	f := newFixture(b)
	var slices [][2]*discoveryv1.EndpointSlice
	var assignments []model.Assignment
	for i := range n {
		service := fmt.Sprintf("s%d", i)
		for c, cluster := range []string{"us-west", "us-east", "eu-west"} {
			var addresses []string
			for k := range 50 {
				addresses = append(addresses, fmt.Sprintf("10.%d.%d.%d", c+1, i/4, i%4*60+k))
			}
			s := memberSlice(cluster, service, addresses...)
			f.slice(s)
			if c == 0 {
				addresses[7] = fmt.Sprintf("10.1.%d.%d", i/4, i%4*60+59)
				slices = append(slices, [2]*discoveryv1.EndpointSlice{memberSlice(cluster, service, addresses...), s})
			}
		}
		assignments = append(assignments, assignmentOf(service, service))
	}
	f.SetAssignments(assignments, nil)
	return f, slices
}
