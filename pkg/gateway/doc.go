// Package gateway says what a set of Gateway API objects means. Build takes a
// snapshot of objects and returns the Model that all edges serve together with
// a verdict for every object that it judged; Allocate gives Gateways their
// addresses. Both are pure.
//
// It never sees an endpoint, a share or an Envoy, holds no client, clock or
// log, and never changes its input. A user's mistake is a verdict, never an
// error: a bad rule, route, listener, certificate or policy spoils itself and
// nothing beside it.
//
// Where only a few routes changed, and only what is their own, Build replaces
// their parts in its last Result (patch.go); the Memo has that. The result is
// the same as without.
//
// Choices that the Gateway API leaves to its implementations:
//
//   - A rule with a value that we refuse is dropped as GEP-1364 allows (the
//     route stays Accepted, with PartiallyInvalid), but what its valid matches
//     meet is answered 500 rather than left to a wider rule: a filter is never
//     skipped. A route of which no rule is left is Accepted=False, answered
//     patchable.
//   - A regular expression for the path comes after exact paths and before
//     prefixes, the longest first.
//   - A ServiceImport may be named without a port where it has exactly one.
//   - The rules of one host never fall through to those of a wider host.
//   - timeouts.request and timeouts.backendRequest count for the whole exchange,
//     a WebSocket's too. No timeout makes an upload longer than 5 minutes.
//   - Requests for a dead backend go to the others of its rule that speak the
//     same protocol, with the header changes of the one they were meant for.
//   - A match that an older route has on the same host never applies, and the
//     younger route says so (condition Shadowed).
//   - A Gateway that an edge refused stays in the Model and says so: an edge
//     keeps the last listener that it accepted. A refused route is left out.
//
// Example:
//
//	result := gateway.Build(gateway.Input{Gateways: gateways, Routes: routes, Imports: imports, Memo: last.Memo})
//	// result.Model to lbsync.Program, result.Reports to condition/writer
package gateway
