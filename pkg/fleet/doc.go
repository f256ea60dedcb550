// Package fleet has the types that all packages of Crossway share: clusters,
// places, names, ports and endpoints. They are plain comparable data with text
// forms and an order, and nothing else. The package imports none of ours.
//
// Example: the endpoint 10.1.0.7:8080 that cluster us-west offers for shop/web:
//
//	fleet.Endpoint{Cluster: "us-west", Address: netip.MustParseAddr("10.1.0.7"), Port: 8080, State: fleet.Ready}
package fleet
