// Package agent runs in a member cluster and keeps the hub's view of its
// exports true: it watches ServiceExports, Services, EndpointSlices and Nodes,
// lets serviceexport.Describe and Strip say what the hub shall have, applies
// the difference to the member's own namespace on the hub, and brings the
// hub's conditions back to the ServiceExports.
//
// There is one key for each export and one for each slice, so that one changed
// slice is one write. What is already on the hub is read from a cache of the
// own namespace: a restart writes nothing when nothing changed, and nothing is
// deleted before both clusters' caches are complete. It writes nothing in the
// member but the status of ServiceExports, reads no Secret, and sees no other
// member.
//
// Example:
//
//	hub, err := agent.NewHub(hubConfig, "us-west", scheme)
//	exporter := agent.NewExporter("us-west", mgr, hub)
//	err = exporter.SetupWithManager(mgr)
package agent
