// Package fleet has the words that every room of Crossway shares: clusters,
// places, service names, ports and endpoints. It is a leaf: plain comparable
// data without behaviour beyond text forms, and it imports nothing of ours.
//
// Example: the endpoint 10.1.0.7:8080 that cluster us-west offers for shop/web:
//
//	fleet.Endpoint{Cluster: "us-west", Address: netip.MustParseAddr("10.1.0.7"), Port: 8080, State: fleet.Ready}
package fleet
