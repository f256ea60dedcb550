// Package envoy translates a Program and its load assignments into Envoy resources. It is the only package that knows
// Envoy's configuration. It is pure.
//
// Each resource is validated, inside its Any messages too. A rule or a chain that Envoy would refuse is answered 500 or
// closed, and named in Faults, so that it never spoils its neighbours. The Version of a resource is a hash of its bytes;
// the same input gives the same bytes. A load assignment's Version carries its shares too. Sources names the objects that
// a resource was made of; it is not part of the bytes or the Version.
//
// The package never decides where requests go: weights and endpoints come from lbsync.Assign, rules from gateway.Build.
//
// Example: the resources of the edges of pool us:
//
//	resources := envoy.Translate(lbsync.ProgramFor(m, lbsync.PoolRef{Pool: "us", Region: "us"}))
//	resources.Listeners[0].Name    // infra/shared/443
//	resources.Listeners[0].Sources // [Gateway infra/shared, Secret infra/certificate]
package envoy
