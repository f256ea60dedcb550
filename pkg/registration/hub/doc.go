// Package hub runs on the hub and gives members access to it: for each accepted
// MemberCluster it makes the namespace, Role and RoleBinding that
// registration.Objects returns. It decides who joins (Joiner, EdgeJoiner), writes
// MemberCluster.status, makes the edge CA and the certificates of the hub's servers
// (Signer), and tells agents where the member API is (Announcer). Where the kind is known, it publishes members as ClusterProfiles
// (Profiles).
//
// A MemberCluster whose acceptance is withdrawn loses its RoleBinding at once,
// and with it its agent's access. Its namespace and exports stay. They do not
// count (see serviceimport) until it is accepted again. A MemberCluster that is
// deleted loses its namespace with everything that its agent pushed, if the
// namespace has the label that the hub sets. A namespace that somebody else made
// is never used, changed or deleted. A silent member loses nothing.
//
// Example:
//
//	registrar, err := hub.NewRegistrar(mgr, hubRanges)
//	err = registrar.SetupWithManager(mgr, leadership)
package hub
