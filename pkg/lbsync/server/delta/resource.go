package delta

import (
	"crypto/sha256"
	"encoding/hex"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Kind is one of the resource types that are served.
type Kind int

const (
	clusters Kind = iota
	assignments
	secrets
	listeners
	routes
	runtimes
	kinds
)

var (
	typeURLs = [kinds]string{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.SecretType,
		resourcev3.ListenerType, resourcev3.RouteType, resourcev3.RuntimeType,
	}
	kindNames = [kinds]string{"cluster", "assignment", "secret", "listener", "route", "runtime"}
)

// KindOf is the Kind of a type URL; false for a type that is not served.
func KindOf(typeURL string) (Kind, bool) {
	for k, url := range typeURLs {
		if url == typeURL {
			return Kind(k), true
		}
	}
	return 0, false
}

// TypeURL is the type URL of the Kind.
func (k Kind) TypeURL() string { return typeURLs[k] }

// String is a short name, for metrics and logs.
func (k Kind) String() string { return kindNames[k] }

// IsRuntime says whether resources of the kind are the server's own: no Snapshot has
// them, and nobody waits for their ACK.
func (k Kind) IsRuntime() bool { return k == runtimes }

// wildcard says whether Envoy subscribes to every resource of the kind rather
// than by name: its first request then names none (the protocol's legacy wildcard).
func (k Kind) wildcard() bool { return k == clusters || k == listeners }

// Resource is one Envoy resource. Its content is not read.
type Resource struct {
	// Name is unique in its type and pool.
	Name string
	// Version changes with the content: equal versions are not sent again. Empty
	// stands for a hash of Body.
	Version string
	// Body is shared by all streams: do not change it afterwards.
	Body *anypb.Any
	// Assignment is the load assignment (EDS service name) that a Cluster uses.
	// Empty: the one of the Cluster's own name, if there is one.
	Assignment string
}

// Snapshot is everything but load assignments that the edges of a pool should
// have. It must not be changed afterwards. Every Route and Secret is used by a
// Listener or Cluster of the same Snapshot: an edge never asks for one that is
// not, and so would never count as having applied the Snapshot.
type Snapshot struct {
	// Generation is the caller's number of the Snapshot, given back by Progress.
	Generation                           uint64
	Clusters, Secrets, Listeners, Routes []Resource
	// Overrides are what single edges get instead of, or besides, the resources
	// above: by Stream.ID. Such an edge has refused something.
	Overrides map[uint64]Override
}

// Override is what one edge gets instead of resources of the same names.
type Override struct{ Listeners, Routes []Resource }

// NameVersion is one resource as an edge has it.
type NameVersion struct{ Name, Version string }

// Nack is the NACK of one resource. The version that the edge applied before
// stays in force there: Applied, empty if it has none. AppliedIn is a snapshot that
// had it, 0 if none is known.
type Nack struct {
	TypeURL, Name, Version, Message, Applied string
	AppliedIn                                uint64
}

// Progress is what one edge has done with the snapshots of its pool.
type Progress struct {
	// Generation is the last snapshot that it applied completely, with every
	// cluster warm; 0 before the first.
	Generation uint64
	// Answered is the last snapshot of which it ACKed or NACKed everything. One
	// NACKed resource does not hide what the edge did with the others.
	Answered uint64
	// Nacks are of the resources whose last answer was a NACK, whatever the version
	// that was NACKed.
	Nacks []Nack
}

// encoded is a Resource as it goes on the wire, made once for all streams.
type encoded struct {
	wire       *discovery.Resource
	assignment string
}

// version is empty where there is no resource.
func (e encoded) version() string {
	if e.wire == nil {
		return ""
	}
	return e.wire.Version
}

func (e encoded) body() []byte { return e.wire.GetResource().GetValue() }

func (e encoded) equal(o encoded) bool {
	return e.version() == o.version() && e.assignment == o.assignment
}

func encode(r Resource) encoded {
	version := r.Version
	if version == "" {
		sum := sha256.Sum256(r.Body.GetValue())
		version = hex.EncodeToString(sum[:8])
	}
	assignment := r.Assignment
	if assignment == "" {
		assignment = r.Name
	}
	return encoded{wire: &discovery.Resource{Name: r.Name, Version: version, Resource: r.Body}, assignment: assignment}
}
