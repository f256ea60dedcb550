// Package request measures what a request costs an edge, beside a static Envoy with the same hosts, routes and endpoints.
//
// The edge is as shipped: the chart's bootstrap, the product's xDS server with mutual TLS and a load report each second,
// and the resources that gateway.Build and envoy.Translate make of a Gateway with defaults and its routes. Only load
// assignments are written here, with endpoints that nginx serves. The static Envoy is the same program with a bootstrap
// as its documentation has it. Each has one worker thread.
//
// Two Envoys are measured at the same time on processor 0, with equal load by two clients (h2load) on processor 1. What
// changes the speed of the machine changes both, so the ratio of a pair says more than either figure. Processes are new
// for every pair, and the pairs of all comparisons are shuffled. Pairs of two equal Envoys show what is noise.
package request
