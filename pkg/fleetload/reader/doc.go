// Package reader reads the load of the fleet from the metrics of the hub's replicas, from wherever its API server can be
// reached: each replica by a port forward, as `kubectl port-forward` makes it. A proxy of the API server to the pod would
// be simpler, but NetworkPolicies (charts/hub has one) and firewalls of managed control planes keep it out.
//
// The user needs to list pods and to create pods/portforward in the hub's namespace.
//
//	load, err := r.Read(ctx) // r := reader.New(config, "crossway-system"); defer r.Close()
package reader
