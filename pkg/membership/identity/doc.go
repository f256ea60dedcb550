// Package identity keeps what a member's agent gossips with: its certificate, the CAs that
// it trusts, and who else may gossip. It asks the hub's member API, with whatever
// credential the agent has, and keeps the private key in memory.
//
// A certificate lives for a day at most, and never longer than the agent's credential. It is
// asked for anew every few minutes, so that a hub that has made another CA is trusted soon.
// Who may gossip comes within a second of a change: a credential that was revoked is of no
// use at other agents either.
//
// It opens no connection for gossip, and says nothing about who lives.
//
// Example:
//
//	agent := identity.New(identity.Config{API: api.Transport(), Log: log})
//	go agent.Start(ctx)
//	certificate, err := agent.Certificate() // of the next handshake
package identity
