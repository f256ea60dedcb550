// Package envoy turns a place's Program and its load assignments into Envoy resources, and is the only package that
// knows Envoy's configuration. It is pure.
//
// Each resource is validated before it leaves, inside its Any messages too; a rule or a chain that Envoy would refuse
// is answered 500 or closed, and named in Faults, so that it never spoils its neighbours. The version of a resource is
// a hash of its bytes, and those are the same for the same input. A load assignment's version carries its shares too.
//
// It never decides where requests go: weights and endpoints come from lbsync.Assign, rules from gateway.Build.
//
// Example: what the edges of pool us serve:
//
//	resources := envoy.Translate(lbsync.ProgramFor(m, lbsync.PoolRef{Pool: "us", Region: "us"}))
//	resources.Listeners[0].Name // infra/shared/443
package envoy
