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

// One changed slice of an import that ten members of ten regions export, with ten endpoints each, for ten pools.
func BenchmarkTenRegions(b *testing.B) {
	f := newFixture(b)
	var slices [2]*discoveryv1.EndpointSlice
	for c := range 10 {
		region, cluster := fmt.Sprintf("r%d", c), fmt.Sprintf("c%d", c)
		f.pool(region, region)
		f.member(cluster, region, fmt.Sprintf("10.%d.0.0/16", 100+c), 100)
		var addresses []string
		for k := range 10 {
			addresses = append(addresses, fmt.Sprintf("10.%d.0.%d", 100+c, k))
		}
		slices[0] = memberSlice(cluster, "s", addresses...)
		f.slice(slices[0])
		addresses[7] = fmt.Sprintf("10.%d.0.%d", 100+c, 77)
		slices[1] = memberSlice(cluster, "s", addresses...)
	}
	f.SetAssignments([]model.Assignment{assignmentOf("s", "s")}, nil)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		f.slice(slices[i%2])
		f.run()
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

// The pass in which another member's slice changes while one member has changed all slices that it may have (20,000
// endpoints): for as long that member's changes delay the other's.
func BenchmarkFlood(b *testing.B) {
	const services, each = 50, 4
	f := newFixture(b)
	var assignments []model.Assignment
	var forms [2][]*discoveryv1.EndpointSlice
	for i := range services {
		service := fmt.Sprint("s", i)
		for part := range each {
			for form := range forms {
				addresses := make([]string, 100)
				for k := range addresses {
					addresses[k] = fmt.Sprintf("10.1.%d.%d", i*each+part, k+form)
				}
				s := memberSlice("us-west", service, addresses...)
				s.Name = fmt.Sprint(service, "-", part)
				forms[form] = append(forms[form], s)
			}
		}
		assignments = append(assignments, assignmentOf(service, service))
	}
	assignments = append(assignments, assignmentOf("other", "other"))
	f.SetAssignments(assignments, nil)
	for i := 0; b.Loop(); i++ {
		for _, s := range forms[i%2] {
			f.slice(s)
		}
		f.slice(memberSlice("us-east", "other", fmt.Sprint("10.2.0.", 1+i%2)))
		f.run()
	}
}
