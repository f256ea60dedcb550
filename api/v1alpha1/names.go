package v1alpha1

// Names that all rooms agree on.
const (
	// FleetNamespace is where the hub keeps FleetServices: the fleet's truth
	// about each service, readable by every member.
	FleetNamespace = "crossway-fleet"
	// SystemNamespace is where the hub itself runs.
	SystemNamespace = "crossway-system"
	// MemberNamespacePrefix and a cluster's name give its namespace on the hub:
	// the only one that it may write to.
	MemberNamespacePrefix = "member-"

	// GatewayController is the controllerName of Crossway's GatewayClasses.
	GatewayController = "crossway.dev/gateway"

	// MemberUserPrefix and a cluster's name give the user its agent is on the hub.
	MemberUserPrefix = "crossway:member:"
	// MembersGroup is the group of every agent on the hub.
	MembersGroup = "crossway:members"

	// AgentLease is the Lease that an agent renews in its namespace every 10 s.
	AgentLease = "crossway-agent"

	// LabelServiceName, LabelServiceNamespace and LabelSourceCluster are on each
	// EndpointSlice that a member pushes. The slice has no kubernetes.io/service-name:
	// no controller of the hub's cluster may take it for its own.
	LabelServiceName      = "crossway.dev/service-name"
	LabelServiceNamespace = "crossway.dev/service-namespace"
	LabelSourceCluster    = "multicluster.kubernetes.io/source-cluster"
	// LabelMember is on the namespace, Role and binding that the hub makes for a member.
	LabelMember = "crossway.dev/member"

	// AgentFieldManager and HubFieldManager own what server-side apply writes.
	AgentFieldManager = "crossway-member-agent"
	HubFieldManager   = "crossway-hub"

	// ManagedBySlices is endpointslice.kubernetes.io/managed-by of pushed slices.
	ManagedBySlices = "member-agent.crossway.dev"
)
