// Package model is what a Gateway API configuration means, said without
// Kubernetes and without Envoy: listeners, hosts, rules in the order in which
// they match, and the assignments that rules send requests to. It is plain
// data and a leaf; gateway.Build makes it and lbsync.Program reads it.
//
// It never holds an endpoint or a share: those meet an Assignment in
// lbsync.Assign, so an endpoint that changes never needs a Build.
//
// Example: a route sending all of store.example.com to the import shop/store:
//
//	VirtualHost{Hostname: "store.example.com", Rules: []Rule{{
//		Match:   Match{Path: PathMatch{Kind: PathPrefix, Value: "/"}},
//		Forward: &Forward{Targets: []Target{{Assignment: "shop/store/6b2f", Weight: 1}}},
//	}}}
package model
