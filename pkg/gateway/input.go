package gateway

import (
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Input is one snapshot of the hub, in any order. Build reads it and never
// writes it; nothing in a Result points into it but strings and the bytes of
// certificates. Objects that are none of ours (classes of other controllers,
// their Gateways and routes) may be in it and are passed over.
type Input struct {
	GatewayClasses []gatewayv1.GatewayClass
	Gateways       []gatewayv1.Gateway
	Parameters     []v1alpha1.GatewayParameters
	Routes         []*Route
	Grants         []gatewayv1beta1.ReferenceGrant
	Namespaces     []corev1.Namespace // names and labels
	Secrets        []corev1.Secret    // at least those that Gateways name
	Imports        []v1alpha1.FleetService
	// ServiceImports of the hub's cluster. They resolve nothing: one without an
	// FleetService is not of our fleet, and the message says so.
	ServiceImports []mcsv1beta1.ServiceImport
	Services       []corev1.Service
	Policies       []v1alpha1.BackendPolicy
	Pools          []v1alpha1.EdgePool // status.allocations as they are recorded

	// Nacks are what an edge refused. Each counts while its object is at that generation.
	Nacks []Nack
	// CRDVersion is the annotation gateway.networking.k8s.io/bundle-version of
	// the installed CRDs, like "v1.6.3"; empty: unknown, and not reported on.
	CRDVersion string

	// Memo is Result.Memo of the last Build, or nil. It makes Build faster and
	// never changes its Result, as long as nobody changes a list, a map or a
	// route in place that was in the Input of that Build.
	Memo *Memo
}

// Nack is an edge's refusal of what was made of one object.
type Nack struct {
	Ref     condition.Ref // a Gateway or a route, at the generation that was refused
	Message string        // Envoy's error detail
}

// Progress is how far edges are, by Gateway. No entry: no edge is connected.
type Progress map[fleet.ObjectName]Programming

// Programming is how far the edges in a Gateway's EdgePools are.
type Programming struct {
	Generation int64 // metadata.generation of the Gateway that Acked is about
	Connected  int   // edges connected now
	Acked      int   // of those, edges that have acknowledged all of the Gateway at Generation
	// Unserved are the EdgePools in which the Gateway has an address and no edge is connected, sorted.
	Unserved []string
	// Early: the hub has just started, and edges may not have come back yet.
	// Unserved is then left out of reports.
	Early bool
}

// Result is what a snapshot means. Equal snapshots give equal results,
// whatever the order of their parts.
type Result struct {
	Model model.Model
	Memo  *Memo // for the next Input; never part of a comparison

	reports []*objectReport // by kind, then name; Report completes them
}
