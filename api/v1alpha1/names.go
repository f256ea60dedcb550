package v1alpha1

import (
	"strings"
	"time"
)

// Names that agents, hub and edges agree on.
const (
	// FleetNamespace is the namespace of FleetServices on the hub, and of MemberAPIConfigMap.
	FleetNamespace = "crossway-fleet"
	// SystemNamespace is the namespace of the hub itself.
	SystemNamespace = "crossway-system"
	// MemberNamespacePrefix begins the name of a member's namespace on the hub: see MemberNamespace.
	MemberNamespacePrefix = "member-"

	// GatewayController is the controllerName of Crossway's GatewayClasses.
	GatewayController = "crossway.dev/gateway"

	// MemberUserPrefix and a cluster's name are the user name of its agent on the hub.
	MemberUserPrefix = "crossway:member:"
	// MembersGroup is the group of all agents on the hub.
	MembersGroup = "crossway:members"

	// MemberAPIConfigMap in FleetNamespace says where the member API is: keys
	// MemberAPIAddress, like https://hub.example:18001, and MemberAPICA, the PEM
	// certificate of the CA that signed the server's.
	MemberAPIConfigMap = "crossway-member-api"
	MemberAPIAddress   = "address"
	MemberAPICA        = "ca.crt"

	// AgentLease is the name of the Lease that an agent renews in its namespace on the hub.
	AgentLease = "crossway-agent"
	// AgentLeaseRenewInterval is the time between two renewals of that Lease.
	AgentLeaseRenewInterval = 10 * time.Second
	// AgentLeaseDuration is the time without a renewal after which a member
	// counts as silent: three renewals may be lost.
	AgentLeaseDuration = 40 * time.Second

	// AnnotationWithdrawalPaused is on the agent's Lease while the agent withdraws
	// nothing that its cluster lacked at its start; its value names the pause. Whoever
	// puts AnnotationWithdraw with the same value there has it withdraw.
	AnnotationWithdrawalPaused = "crossway.dev/withdrawal-paused"
	AnnotationWithdraw         = "crossway.dev/withdraw"

	// LabelServiceName, LabelServiceNamespace and LabelSourceCluster are on each
	// EndpointSlice that an agent pushes to the hub. These slices do not have the
	// label kubernetes.io/service-name, so that no controller of the hub's own
	// cluster uses them for a Service there.
	LabelServiceName      = "crossway.dev/service-name"
	LabelServiceNamespace = "crossway.dev/service-namespace"
	LabelSourceCluster    = "multicluster.kubernetes.io/source-cluster"
	// LabelSourceRegion is on each EndpointSlice that the member API serves: the region of its cluster.
	LabelSourceRegion = "crossway.dev/source-region"
	// AnnotationRegion is on each ServiceImport that the member API serves: the region of the member that reads it.
	AnnotationRegion = "crossway.dev/region"
	// LabelMember is on the Namespace, Role and RoleBinding that the hub makes for a member.
	LabelMember = "crossway.dev/member"
	// LabelRefusedRoute is on the hub's records of routes that edges refuse.
	LabelRefusedRoute = "crossway.dev/refused-route"

	// LabelManagedBy with the value ManagedBy is on objects that Crossway makes beside
	// users' own: ServiceImports, and Services derived from them.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "crossway.dev"

	// AgentFieldManager and HubFieldManager are the field managers of server-side apply.
	AgentFieldManager = "crossway-member-agent"
	HubFieldManager   = "crossway-hub"

	// ManagedBySlices is the value of endpointslice.kubernetes.io/managed-by on pushed slices.
	ManagedBySlices = "member-agent.crossway.dev"
	// ManagedByImports is its value on slices that an agent imports into its own cluster.
	ManagedByImports = "imports.crossway.dev"
)

// MemberNamespace is the namespace of a member on the hub, the only one that
// its agent may write to.
func MemberNamespace[Name ~string](cluster Name) string {
	return MemberNamespacePrefix + string(cluster)
}

// MemberOfNamespace is the reverse of MemberNamespace; ok is false for a
// namespace that is no member's.
func MemberOfNamespace(namespace string) (cluster string, ok bool) {
	cluster, ok = strings.CutPrefix(namespace, MemberNamespacePrefix)
	return cluster, ok && cluster != ""
}

// ObjectName is the name of a service's MemberExport and FleetService,
// <service>.<namespace>: at most 127 characters. Neither part has a dot in it,
// so two services never have the same name.
func (s ServiceReference) ObjectName() string { return s.Name + "." + s.Namespace }
