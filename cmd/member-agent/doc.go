// Command member-agent runs in a member cluster. It joins the fleet with the token in Secret
// crossway-join and keeps its credential of the hub in Secret crossway-hub-credential (see
// pkg/registration/agent), pushes the cluster's exports to the hub (pkg/serviceexport/agent)
// and makes the imports that the hub serves to it (pkg/serviceimport/agent).
// In its own cluster it reads ServiceExports, Services, EndpointSlices, Namespaces and
// Nodes, and writes the status of ServiceExports, ServiceImports with their derived
// Services and EndpointSlices, its Secret, and, for leader election, one Lease.
//
//	member-agent --namespace=crossway-system --leader-elect
package main
