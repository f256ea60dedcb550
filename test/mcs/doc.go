// Package mcs runs the official conformance suite of the Multi-Cluster Services API
// (KEP-1645, sigs.k8s.io/mcs-api/conformance) against two members of a lab.
//
// The suite is unmodified, at a pinned commit (install.MCSCommit), and has its own
// timeouts. The package starts the lab, says what the images of the suite's pods are on
// this machine, and checks the suite's report: a spec that was skipped is a failure, as
// one that failed is.
//
//	lab.Enter(lab.Entry{Prepare: mcs.Prepare}) // builds the suite while there is a network
//	err := mcs.Run(ctx, mcs.Config{Dir: "out/mcs-conformance", Out: os.Stdout})
package mcs
