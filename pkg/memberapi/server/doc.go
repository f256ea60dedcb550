// Package server serves the member API (docs/adr/0019): list and watch of
// ServiceImports and EndpointSlices, in the protocol of a Kubernetes API server, so
// that agents read it with client-go's informers and people with kubectl.
//
// It watches MemberClusters and pushed slices, takes merged services from whoever
// merges, and keeps what members see in memberapi.State. Every replica serves.
// Nothing is served before that State is whole: of an empty list, agents would take
// away what they have.
//
// A client is authenticated as the API server of the hub's cluster would do it: by a
// certificate of that cluster's client CA, or a token that it reviews. It is then
// user crossway:member:<name>:<id>, and sees what MemberCluster <name> allows. A watch
// ends at once when that changes, and when its credential expires.
//
// What a member can cost is bounded: connections, watches, and lists at a time. Its
// watches keep positions and no events; a client that does not read is cut off.
//
// Example:
//
//	api := server.New(server.Config{Informers: mgr.GetCache(), Reserved: cidrs, Log: log})
//	mgr.Add(api) // which gets merged services by api.Merged
//	mgr.Add(server.NewListener(server.ListenerConfig{Server: api, Address: ":18001", Authenticator: a, ...}))
package server
