// Package agent shows the fleet's imports in one cluster: it reads
// FleetServices, lets serviceimport.Project say what the ServiceImport is,
// and applies it wherever the cluster has the import's namespace, also when
// that namespace appears later.
//
// It never creates or deletes a namespace, and leaves a ServiceImport that
// somebody else made as it is, which an event on that object tells.
//
// Example, for the hub's own cluster, where both sides are the same:
//
//	projector, err := agent.NewProjector(mgr, mgr)
//	err = projector.SetupWithManager(mgr)
package agent
