// Package inventory runs in a member and writes its ClusterProperties (KEP-2149), by which
// other programs in the cluster know its name in the fleet and the fleet's. It writes only
// where their CRD is installed, and never an object that somebody else made.
//
// Example:
//
//	properties := inventory.New(mgr.GetClient(), hub.GetAPIReader(), "us-west")
//	err := properties.SetupWithManager(mgr, leadership)
package inventory
