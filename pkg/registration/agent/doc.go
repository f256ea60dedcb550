// Package agent runs in a member cluster and keeps its credential of the hub: it joins
// with the token in Secret crossway-join, renews what it got, and holds the member's Lease
// on the hub, which says that this cluster, and no copy of it, works for the member.
//
// A private key is made here and is written to Secret crossway-hub-credential of this
// cluster, nowhere else. Nothing is restarted for a new credential: each request takes the
// newest (link), and what is under way ends as it began. What keeps the cluster from the
// fleet is said once per change: in the log, by an Event, by /readyz, and by an annotation
// of Secret crossway-hub-credential.
//
// It decides nothing about exports or imports, and never asks for more than one
// credential at a time.
//
// Example:
//
//	joiner, err := agent.New(mgr, agent.Options{Namespace: "crossway-system", Pod: "agent-0"})
//	leadership, err := program.LeaderElection{Before: joiner.Elected}.New(config)
//	credential, ok := joiner.Credential(ctx) // waits for it
//	hub, err := rest.HTTPClientFor(joiner.HubConfig(credential))
package agent
