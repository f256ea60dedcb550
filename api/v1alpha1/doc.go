// Package v1alpha1 has Crossway's own kinds of objects (group crossway.dev). Each
// holds what no standard kind has: the clusters of the fleet (MemberCluster), the
// exports of one member and their merge (MemberExport, FleetService), the Envoys
// of a region and their addresses (EdgePool), where the Gateways of a class are
// served (GatewayParameters), and the capacity of backends (BackendPolicy).
//
// The package has types, their validation by the API server, and the names that
// agents and hub share (names.go). It has no behaviour.
//
// +kubebuilder:object:generate=true
// +groupName=crossway.dev
package v1alpha1
