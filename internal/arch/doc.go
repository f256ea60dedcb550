// Package arch has the rules which package may import which (docs/architecture.md)
// and the tests that enforce them. It has no code of its own.
//
// Example: pkg/gateway may import fleet, gateway/model, condition and the API
// types, and never a Kubernetes client, an Envoy proto, a clock or a log.
package arch
