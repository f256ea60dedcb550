// Package gateway translates Gateway API objects into the Model that edges serve.
// Build takes a snapshot of objects and returns the Model. Report returns the
// conditions of every object. Allocate allocates addresses to Gateways. All three
// are pure functions.
//
// The package has no endpoints, traffic shares or Envoy configuration, and no
// client, clock or log. It never changes its input. A user's mistake is a
// condition, never an error: an invalid rule, route, listener, certificate or
// policy affects no other object.
//
// Each Build leaves its results in a Memo, which is an input of the next one. If
// only a few routes changed, Build copies the last Result and replaces what these
// routes contributed (incremental.go). The Result equals that of a full Build.
//
// Choices that the Gateway API leaves to its implementations:
//
//   - A rule with an unsupported value is dropped as GEP-1364 allows (the route
//     stays Accepted, with PartiallyInvalid). Requests that its valid matches
//     select are answered 500 and do not fall through to a wider rule: a filter
//     is never skipped. A route without a valid rule is Accepted=False; its
//     requests are answered 500, too.
//   - A regular expression for the path comes after exact paths and before
//     prefixes, the longest first.
//   - A backendRef to a ServiceImport needs no port if the import has exactly one.
//   - What no rule of a host matches is served by the rules of wider hosts of the same
//     listener, as far as the budgets go.
//   - timeouts.request and timeouts.backendRequest limit the whole exchange, also
//     of a WebSocket. A request must have arrived within 5 minutes, even if its
//     rule has a longer timeout.
//   - Requests for a dead backend go to the rule's other backends of the same
//     protocol, with the header changes of the dead backend.
//   - If two routes have the same match on the same host, only the older route's
//     applies. The younger route reports it (condition Shadowed).
//   - Build knows nothing of what edges refuse (NACK); Report says it. Edges that
//     refuse a route get another Model, of a Build in which an earlier version of the
//     route is in its place (InsteadOf) or the route is left out. They keep the last
//     listener that they accepted.
//
// Example:
//
//	result := gateway.Build(gateway.Input{Gateways: gateways, Routes: routes, Imports: imports, Memo: last.Memo})
//	// result.Model goes to rollout.Publish, Report(result, progress) to condition/writer
package gateway
