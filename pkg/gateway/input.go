package gateway

import (
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Input is one snapshot of the hub, in any order. Build never changes it. Of its
// memory, a Result shares only strings and the bytes of certificates. Objects of
// other controllers (their classes, Gateways and routes) may be in it and are
// ignored.
type Input struct {
	GatewayClasses []gatewayv1.GatewayClass
	Gateways       []gatewayv1.Gateway
	Parameters     []v1alpha1.GatewayParameters
	Routes         []*Route
	Grants         []gatewayv1beta1.ReferenceGrant
	Namespaces     []corev1.Namespace      // names and labels
	Secrets        []corev1.Secret         // at least the ones that Gateways name
	Imports        []v1alpha1.FleetService // merged of exports; the stored ones are for others to read
	// ServiceImports of the hub's cluster. They resolve no reference. They only
	// explain why a reference is not resolved: a ServiceImport without a
	// FleetService is not part of the fleet.
	ServiceImports []mcsv1beta1.ServiceImport
	Services       []corev1.Service
	Policies       []v1alpha1.BackendPolicy
	Pools          []v1alpha1.EdgePool // with status.allocations

	// SecretNamespaces are those whose Secrets the hub may read; empty: all.
	SecretNamespaces []string
	// CRDVersion is the annotation gateway.networking.k8s.io/bundle-version of
	// the installed CRDs, like "v1.6.3"; empty: unknown, and not reported on.
	CRDVersion string

	// WiderAdmissions are Result.WiderAdmissions of the last Build, or nil.
	WiderAdmissions *WiderAdmissions

	// Memo is Result.Memo of the last Build, or nil. It makes Build faster. It
	// never changes the Result, as long as the lists, maps and routes in the Input
	// of that Build are not modified in place.
	Memo *Memo
}

// Progress is the progress of edges by Gateway. No entry: no edge is connected.
type Progress map[fleet.ObjectName]Programming

// Programming is the progress of the edges in a Gateway's EdgePools.
type Programming struct {
	Generation int64 // metadata.generation of the Gateway that Acked is about
	Connected  int   // edges connected now
	Acked      int   // connected edges that have acknowledged all of the Gateway at Generation
	// Unserved are the EdgePools in which the Gateway has an address and no edge is connected, sorted.
	Unserved []string
	// Refused are the EdgePools whose edges all refuse a part of the Gateway, sorted;
	// they do not count above. Message is Envoy's for one of them.
	Refused []string
	Message string
	// Early: the hub has just started, and edges may not have reconnected yet.
	// Unserved is then left out of reports.
	Early bool
}

// Result is the result of a Build. Equal snapshots give equal results, whatever
// the order of their objects.
type Result struct {
	Model           model.Model
	Memo            *Memo            // for the next Input; never part of a comparison
	WiderAdmissions *WiderAdmissions // for the next Input; nil: all routes of wide hosts have room at the narrower ones

	reports []*objectReport // by kind, then name; Report completes them
}
