// Package arch holds the rules of who may import whom (docs/architecture.md)
// and a test that enforces them. It has no code of its own.
//
// Example: pkg/gateway may import fleet, gateway/model, condition and the API
// types, and never a Kubernetes client, an Envoy proto, a clock or a log.
package arch
