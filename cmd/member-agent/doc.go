// Command member-agent runs in a member cluster and pushes its exports to the
// hub: see pkg/serviceexport/agent. It calls the hub as user
// crossway:member:<cluster>. In its own cluster it reads ServiceExports, Services,
// EndpointSlices and Nodes, and writes the status of ServiceExports and, for
// leader election, one Lease.
//
//	member-agent --cluster=us-west --hub-kubeconfig=/etc/crossway/hub.kubeconfig
package main
