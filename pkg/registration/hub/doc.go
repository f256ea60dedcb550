// Package hub runs on the hub and lets members in: for each accepted
// MemberCluster it makes the namespace, Role and RoleBinding that
// registration.Objects says, and it writes MemberCluster.status.
//
// A MemberCluster that is no longer accepted loses its RoleBinding at once, so
// that its agent is refused; its namespace and exports stay, count for
// nothing (serviceimport), and count again when it is accepted again. One that
// is deleted loses its namespace with all that its agent pushed, if the
// namespace is labelled as made for it. A namespace that somebody else made is
// never taken, changed or deleted. Silence takes nothing away.
//
// Example:
//
//	registrar, err := hub.NewRegistrar(mgr, hubRanges)
//	err = registrar.SetupWithManager(mgr)
package hub
