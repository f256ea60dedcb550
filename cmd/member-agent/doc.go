// Command member-agent runs in a member cluster, pushes its exports to the hub (see
// pkg/serviceexport/agent) and makes the imports that the hub serves to it (see
// pkg/serviceimport/agent). It calls the hub as user crossway:member:<cluster>. In
// its own cluster it reads ServiceExports, Services, EndpointSlices, Namespaces and
// Nodes, and writes the status of ServiceExports, ServiceImports with their derived
// Services and EndpointSlices, and, for leader election, one Lease.
//
//	member-agent --cluster=us-west --hub-kubeconfig=/etc/crossway/hub.kubeconfig
package main
