// Package v1alpha1 has Crossway's own objects (group crossway.dev). Each exists
// only for what no standard object says: who is in the fleet (MemberCluster),
// what a member offers and what the fleet made of it (MemberExport,
// FleetService), where Envoys run and which addresses they hold (EdgePool),
// what kind of gateway a class gives (GatewayParameters), and how much a
// backend takes (BackendPolicy).
//
// The package holds shapes and their validation at the API server, never behaviour.
//
// +kubebuilder:object:generate=true
// +groupName=crossway.dev
package v1alpha1
