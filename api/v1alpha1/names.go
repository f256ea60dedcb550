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

	// MembersNamespace is the namespace, on the hub, of the ServiceAccounts that join
	// tokens are for, and of those of members that have tokens for certificates.
	MembersNamespace = "crossway-members"

	// GatewayController is the controllerName of Crossway's GatewayClasses.
	GatewayController = "crossway.dev/gateway"

	// MemberUserPrefix begins the user name of an agent on the hub that has a client
	// certificate: registration.MemberUser has the whole.
	MemberUserPrefix = "crossway:member:"
	// MembersGroup is the group of all agents on the hub.
	MembersGroup = "crossway:members"

	// MemberAPIConfigMap in the namespace of each member says where the member API is: keys
	// MemberAPIAddress, like https://hub.example:18001, and MemberAPICA, the PEM
	// certificate of the CA that signed the server's.
	MemberAPIConfigMap = "crossway-member-api"
	MemberAPIAddress   = "address"
	MemberAPICA        = "ca.crt"
	// MemberAPIGossip is the key with the address of the hub's port for gossip, like
	// hub.example:18002; absent where there is none.
	MemberAPIGossip = "gossip"
	// Paths of the member API beside those of objects: a certificate for gossip, and who may
	// gossip.
	GossipPathPrefix      = "/gossip/"
	GossipCertificatePath = GossipPathPrefix + "certificate"
	GossipMembersPath     = GossipPathPrefix + "members"
	// MemberAPIClusterSet is the key with the name of the fleet (clusterset.k8s.io, KEP-2149).
	MemberAPIClusterSet = "clusterset"

	// AgentLease is the name of the Lease that an agent renews in its namespace on the hub.
	AgentLease = "crossway-agent"
	// AgentLeaseRenewInterval is the time between two renewals of that Lease.
	AgentLeaseRenewInterval = 10 * time.Second
	// AgentLeaseDuration is the time without a renewal after which a member
	// counts as silent: three renewals may be lost.
	AgentLeaseDuration = 40 * time.Second
	// SilenceOfExports is how long an agent and the hub have no contact before exports say
	// so, on the hub and in the member. A member may have hundreds, so that one which falls
	// silent again and again must not have all of them written each time.
	SilenceOfExports = 5 * time.Minute

	// AnnotationKubernetesVersion is on the agent's Lease: the version of its cluster.
	AnnotationKubernetesVersion = "crossway.dev/kubernetes-version"

	// AnnotationWithdrawalPaused is on the agent's Lease while the agent withdraws
	// nothing that its cluster lacked at its start; its value names the pause. Whoever
	// puts AnnotationWithdraw with the same value there has it withdraw.
	AnnotationWithdrawalPaused = "crossway.dev/withdrawal-paused"
	AnnotationWithdraw         = "crossway.dev/withdraw"

	// AnnotationClusterUID is the UID of the cluster that an agent runs in (that of its
	// namespace kube-system): on its CSRs, on its Lease, and on a join account that it used.
	AnnotationClusterUID = "crossway.dev/cluster-uid"
	// AnnotationCredential is the ID of the credential that an agent has: on its Lease, and
	// on the join account that it was given for.
	AnnotationCredential = "crossway.dev/credential"
	// AnnotationRefusedClusterUID is on the Lease of a member whose credential a second
	// cluster has: that cluster's UID and the time. It works on nothing, and says so every
	// AgentRefusalInterval.
	AnnotationRefusedClusterUID = "crossway.dev/refused-cluster-uid"
	AgentRefusalInterval        = time.Minute
	// AnnotationAgentVersion on an agent's Lease is the version of the agent.
	AnnotationAgentVersion = "crossway.dev/agent-version"
	// AnnotationEndpointCIDRs on a CSR are the ranges that the agent proposes, with commas between them.
	AnnotationEndpointCIDRs = "crossway.dev/endpoint-cidrs"
	// AnnotationAgentTime on a CSR is the agent's clock (RFC 3339).
	AnnotationAgentTime = "crossway.dev/agent-time"
	// AnnotationTokenEnds on a join account is when its token ends (RFC 3339).
	AnnotationTokenEnds = "crossway.dev/token-ends"
	// AnnotationZone on a join account of edges is their zone.
	AnnotationZone = "crossway.dev/zone"
	// AnnotationEdgeRequest on a join account of edges is the UID of the CSR that got a
	// certificate by it.
	AnnotationEdgeRequest = "crossway.dev/edge-request"
	// LabelJoin is on join accounts, and says for what: JoinMember or JoinEdge.
	LabelJoin  = "crossway.dev/join"
	JoinMember = "member"
	JoinEdge   = "edge"

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
