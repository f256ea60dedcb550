// Package conformance runs the official conformance suite of the Gateway API,
// profile GATEWAY-HTTP, against the lab's hub cluster, hub program and Envoys.
//
// The suite is unmodified and has its own timeouts. What is claimed is what the
// GatewayClass lists in status.supportedFeatures; core runs claim the core
// features of the profile only. The package starts the lab, says which tests
// the claims ask for and which they leave out, prints each test as it runs, and
// checks the suite's report against that plan: a test that is missing from the
// report is a failure, as a failed one is. It never skips a test, repeats one,
// or writes a report of its own.
//
// The nested module suite pins the suite and the programs of its test pods, so
// that the product's go.mod lists none of it; internal/lab/install builds it.
//
//	lab.Enter(lab.Entry{Prepare: conformance.Prepare}) // builds the suite while there is a network
//	err := conformance.Run(ctx, conformance.Config{Report: "out/conformance.yaml", Out: os.Stdout})
package conformance
