// Package agent writes the ServiceImports of one cluster. For each FleetService
// it applies the ServiceImport that serviceimport.Project returns, if the
// cluster has the namespace, also when that namespace is created later.
//
// It never creates or deletes a namespace. It does not change a ServiceImport
// that somebody else made, and says so in an event on that object.
//
// Example, for the hub's own cluster, where both sides are the same:
//
//	projector, err := agent.NewProjector(mgr, mgr)
//	err = projector.SetupWithManager(mgr, leadership)
package agent
