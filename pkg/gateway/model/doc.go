// Package model is the configuration of edges in terms of neither Kubernetes nor
// Envoy: listeners, hosts, rules in precedence order, and the assignments that
// rules send requests to. It is plain data. gateway.Build makes it, and
// rollout.Publish turns it into Envoy resources.
//
// It has no endpoints and no traffic shares: lbsync.Assign adds these to
// Assignments, so a changed endpoint never needs a Build.
//
// Example: a route sending all of store.example.com to the import shop/store:
//
//	VirtualHost{Hostname: "store.example.com", Rules: []Rule{{
//		Match:   Match{Path: PathMatch{Kind: PathPrefix, Value: "/"}},
//		Forward: &Forward{Targets: []Target{{Assignment: "shop/store/6b2f", Weight: 1}}},
//	}}}
package model
