// Command member-agent runs in a member cluster and pushes its exports to the
// hub: see pkg/serviceexport/agent. It holds the hub's kubeconfig as the user
// crossway:member:<cluster> and needs in its own cluster only to read
// ServiceExports, Services, EndpointSlices and Nodes, to write the status of
// ServiceExports, and one Lease where it elects a leader.
//
//	member-agent --cluster=us-west --hub-kubeconfig=/etc/crossway/hub.kubeconfig
package main
