// Package agent runs in a member cluster and pushes its exports to the hub. It
// watches ServiceExports, Services, EndpointSlices and Nodes, compares what
// serviceexport.Describe and Strip return with the member's own namespace on the
// hub, applies the difference there, and copies the hub's conditions to the
// ServiceExports.
//
// Each export and each slice has a key of its own, so that one changed slice is
// one write. What is already on the hub is read from a cache of the member's
// namespace: a restart writes nothing if nothing changed, and nothing is deleted
// before the caches of both clusters are complete. In the member it writes only
// the status of ServiceExports. It reads no Secret, and nothing of other members.
//
// Example:
//
//	hub, err := agent.NewHub(hubConfig, "us-west", scheme)
//	exporter := agent.NewExporter("us-west", mgr, hub)
//	err = exporter.SetupWithManager(mgr, leadership)
package agent
