// Package agent writes the ServiceImports of one cluster, where the cluster has
// their namespace, also when that namespace is created later.
//
// In a member the Importer does: it follows the hub's member API, and for each
// served ServiceImport writes the derived Service, the ServiceImport and its
// EndpointSlices that serviceimport.DerivedService, MemberImport and Endpoints
// return. In the hub's own cluster the Projector does: for each FleetService it
// writes the ServiceImport that serviceimport.Project returns.
//
// Neither creates or deletes a namespace. They do not change a ServiceImport or a
// Service that somebody else made, and say so in an event or a condition. Silence
// of the hub deletes nothing (silence.go).
//
// Example, for a member:
//
//	api, err := agent.NewMemberAPI(credentialsNow, userAgent, hubReader, "us-west", scheme)
//	err = mgr.Add(api)
//	importer, err := agent.NewImporter("us-west", mgr, api)
//	err = importer.SetupWithManager(mgr, leadership)
package agent
