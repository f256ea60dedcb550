package fleet

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// ClusterName is the name of one cluster of the fleet and of its MemberCluster: a
// DNS-1123 label, unique and stable while the cluster is a member (KEP-2149).
type ClusterName string

// HubCluster is the name of the hub's own cluster, whose Services routes may use.
// No MemberCluster may have this name.
const HubCluster ClusterName = "hub"

// Place is where something is. Region and zone are names that the fleet admin
// chose. An empty zone is unknown.
type Place struct {
	Region string
	Zone   string
}

// ObjectName is the namespace and name of a namespaced Kubernetes object.
type ObjectName struct {
	Namespace string
	Name      string
}

// String gives "namespace/name".
func (n ObjectName) String() string { return n.Namespace + "/" + n.Name }

// Compare orders by namespace, then name.
func (n ObjectName) Compare(other ObjectName) int {
	return cmp.Or(strings.Compare(n.Namespace, other.Namespace), strings.Compare(n.Name, other.Name))
}

// ServiceName is the name that a Service, its ServiceExports and its ServiceImport
// have in all clusters (namespace sameness, KEP-1645).
type ServiceName = ObjectName

// Kind names a kind of Kubernetes object, like "HTTPRoute".
type Kind string

// ObjectRef names an object by kind and name: objects of different kinds may
// have the same name.
type ObjectRef struct {
	Kind Kind
	Name ObjectName
}

// RouteRef is the ObjectRef of a route.
type RouteRef = ObjectRef

// String gives "Kind namespace/name".
func (r ObjectRef) String() string { return fmt.Sprintf("%s %s", r.Kind, r.Name) }

// Compare orders by kind, then name.
func (r ObjectRef) Compare(other ObjectRef) int {
	return cmp.Or(cmp.Compare(r.Kind, other.Kind), r.Name.Compare(other.Name))
}

// MaxSliceEndpoints is how many endpoints a slice on the hub may have: as many as
// kube-controller-manager puts into one by default (--max-endpoints-per-slice). The
// hub's chart refuses larger ones (members.yaml).
const MaxSliceEndpoints = 100

// PortID is the name of a port in slices on the hub, like "tcp-80": the protocol
// and the number of the Service's port. Clusters may name the same port
// differently, and may rename it. An empty protocol is TCP, the API's default.
func PortID(protocol string, number int32) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(cmp.Or(protocol, "TCP")), number)
}

// EndpointState is the state of an endpoint in Kubernetes (EndpointConditions).
type EndpointState uint8

const (
	// NotReady endpoints get no traffic.
	NotReady EndpointState = iota
	// Ready endpoints get traffic.
	Ready
	// Draining endpoints are terminating but still serving: they finish their
	// requests, and get new ones only if their member has no ready endpoint (KEP-1672).
	Draining
)

// String gives the state's name in lower case.
func (s EndpointState) String() string {
	switch s {
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	default:
		return "not-ready"
	}
}

// Endpoint is one address of a service, with its port number.
type Endpoint struct {
	Cluster ClusterName
	Address netip.Addr
	Port    int32
	Via     string // how it is reached; empty: directly, in a flat network
	Zone    string
	State   EndpointState
}

// Compare orders by cluster, address, port.
func (e Endpoint) Compare(other Endpoint) int {
	return cmp.Or(cmp.Compare(e.Cluster, other.Cluster), e.Address.Compare(other.Address), cmp.Compare(e.Port, other.Port), cmp.Compare(e.Via, other.Via))
}

// BackendKind distinguishes imports from Services of the hub's own cluster.
type BackendKind string

const (
	// Import is a ServiceImport: the endpoints of every exporting cluster.
	Import BackendKind = "ServiceImport"
	// Service is a Service of the hub's own cluster.
	Service BackendKind = "Service"
)

// Backend is what a route sends requests to. Equal names of different kinds are
// different backends (GEP-1748).
type Backend struct {
	Kind BackendKind
	Name ServiceName
}

// String gives "Kind namespace/name".
func (b Backend) String() string { return fmt.Sprintf("%s %s", b.Kind, b.Name) }

// Compare orders by kind, then name.
func (b Backend) Compare(other Backend) int {
	return cmp.Or(cmp.Compare(b.Kind, other.Kind), b.Name.Compare(other.Name))
}
