// Package server is the connection between the hub and the Envoys of the fleet: a
// delta ADS server and the load reporting service, both over mutual TLS.
//
// It owns who may open a stream (only the client certificate counts) and what the
// edges of one pool may cost the hub (an edge may be hostile), the listener with
// its certificate, the locks and the metrics. Package delta, below,
// is the state that it guards: what each edge should have and has, and in which
// order changes are sent. Neither decides what an edge should have, or builds or
// reads an Envoy resource. Of Kubernetes the Listener alone watches two things:
// the Secret of the serving certificate, and EdgePools, whose changes end streams
// that are no longer authorized.
//
// Example:
//
//	xds := server.New(server.Config{Authorize: authorize, Log: log})
//	xds.Observe(server.Observer{Load: func(e server.Edge, r server.LoadReport) { loop.ObserveLoad(edgeOf(e), loadsOf(r)) }})
//	listener := server.NewListener(server.ListenerConfig{Server: xds, Address: ":18000", Informers: cache, Secret: secret, Ready: built, Log: log})
//	xds.UpdateLoadAssignments("public-us", assignments, nil)
//	xds.SetResources("public-us", server.Snapshot{Generation: 1, Clusters: clusters, Listeners: listeners})
package server
