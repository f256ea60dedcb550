package fleet

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// ClusterName names one cluster of the fleet: a DNS-1123 label, the name of
// its MemberCluster. Unique and stable while the cluster is a member (KEP-2149).
type ClusterName string

// HubCluster names the hub's own cluster where it serves Services of its own
// to routes. No MemberCluster may have this name.
const HubCluster ClusterName = "hub"

// Place says where something is. Region and zone are free names that the
// fleet admin chose; an empty zone means that nobody said.
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

// ServiceName is the namespaced name that a Service, its ServiceExports and
// its ServiceImport have in common in all clusters (namespace sameness, KEP-1645).
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

// Port is one port of a Service or of an import.
type Port struct {
	Name        string // empty where the Service has one unnamed port
	Protocol    string // TCP, UDP or SCTP
	Port        int32
	AppProtocol string // empty where nobody said
}

// EndpointState is what Kubernetes says of an endpoint (EndpointConditions).
type EndpointState uint8

const (
	// NotReady endpoints get no traffic.
	NotReady EndpointState = iota
	// Ready endpoints get traffic.
	Ready
	// Draining endpoints are terminating but still serving: they finish what
	// they have, and get new requests only where a member has no ready one (KEP-1672).
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

// Endpoint is one address that answers for a service, its port resolved.
type Endpoint struct {
	Cluster ClusterName
	Address netip.Addr
	Port    int32
	Via     string // empty in a flat network; later a gateway or a tunnel
	Zone    string
	State   EndpointState
}

// Compare orders by cluster, address, port.
func (e Endpoint) Compare(other Endpoint) int {
	return cmp.Or(cmp.Compare(e.Cluster, other.Cluster), e.Address.Compare(other.Address), cmp.Compare(e.Port, other.Port), cmp.Compare(e.Via, other.Via))
}

// BackendKind tells a multi-cluster import from a Service of the hub's own cluster.
type BackendKind string

const (
	// Import is a ServiceImport: the endpoints of every exporting cluster.
	Import BackendKind = "ServiceImport"
	// Service is a Service of the hub's own cluster.
	Service BackendKind = "Service"
)

// Backend names what a route sends requests to: a kind and a service. Equal
// names of different kinds are different backends (GEP-1748).
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
