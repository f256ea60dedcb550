package server

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// kind numbers the resource types.
type kind int

const (
	clusters kind = iota
	assignments
	secrets
	listeners
	routes
	scopes
	kinds
)

var (
	typeURLs = [kinds]string{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.SecretType,
		resourcev3.ListenerType, resourcev3.RouteType, resourcev3.ScopedRouteType,
	}
	kindNames = [kinds]string{"cluster", "assignment", "secret", "listener", "route", "scope"}
)

func kindOf(typeURL string) (kind, bool) {
	for k, url := range typeURLs {
		if url == typeURL {
			return kind(k), true
		}
	}
	return 0, false
}

// all says whether Envoy asks for every resource of the kind rather than by
// name: its first request then names none (the protocol's legacy wildcard).
func (k kind) all() bool { return k == clusters || k == listeners || k == scopes }

// Resource is one Envoy resource, which the server does not look into.
type Resource struct {
	// Name is unique in its type and pool.
	Name string
	// Version says whether the content changed: equal versions are not sent
	// again. Empty stands for a hash of Body.
	Version string
	// Body is shared with all streams: do not change it afterwards.
	Body *anypb.Any
	// Assignment is the load assignment (EDS service name) that a Cluster uses;
	// empty means the one of the Cluster's own name, if there is one.
	Assignment string
}

// Snapshot is everything but load assignments that the edges of a pool should
// have. Nobody changes it once it was given away. Every Route and Secret is used
// by a Listener, ScopedRoute or Cluster of it: an edge never asks for one that
// is not, and so never counts as having applied the snapshot. A ScopedRoute is
// best named by its key: Envoy refuses a second one of the same key while the
// first is there.
type Snapshot struct {
	// Generation is the caller's number for it, given back by Applied.
	Generation                                         uint64
	Clusters, Secrets, Listeners, Routes, ScopedRoutes []Resource
}

// NameVersion is one resource as an edge holds it.
type NameVersion struct{ Name, Version string }

// Nack is a NACK of one resource. The resource that the edge held before
// stays in force there.
type Nack struct{ TypeURL, Name, Version, Message string }

// Edge is one Envoy during one stream. Node is only the label that it gives
// itself; Identity is proven. Stream is unique in the life of the server, so two
// streams of one Envoy, of which one is not known to be dead yet, differ.
type Edge struct {
	Node     string
	Identity Identity
	Stream   uint64
}

// State is what one connected edge has done with its pool's snapshots.
type State struct {
	Edge Edge
	// Generation is the last snapshot that it applied wholly, with every cluster
	// warm; 0 before the first.
	Generation uint64
	// Answered is the last snapshot of which it applied or refused everything: one
	// refused resource does not hide what it did with the others.
	Answered uint64
	// Nacks are about resources of the current snapshot.
	Nacks []Nack
}

// LoadReport is what one edge sent and counted. Only clusters that it has are
// in it, with or without traffic.
type LoadReport struct{ Clusters []ClusterLoad }

// ClusterLoad is one cluster's part of a LoadReport.
type ClusterLoad struct {
	// Cluster is its name, Assignment its EDS service name (or empty).
	Cluster, Assignment string
	// Interval is the time in which the requests were counted: the divisor.
	Interval time.Duration
	// Dropped counts the requests answered 503 without an endpoint being asked;
	// Drops splits those with a category (drop_overloads) by it.
	Dropped uint64
	Drops   []Drop
	// Localities without any request are absent.
	Localities []LocalityLoad
}

// Drop counts the dropped requests of one category.
type Drop struct {
	Category string
	Requests uint64
}

// LocalityLoad counts the requests to one locality. A failed connect is an
// Error that was not Issued. Requests that found no healthy endpoint are
// nowhere: no demand is seen just when all are down.
type LocalityLoad struct {
	Region, Zone, SubZone              string
	Issued, Success, Error, InProgress uint64
}

// Observer is told what edges do. Each func may be nil and must return quickly
// and not wait for the Server's streams; it may call the Server. No lock is held.
// Calls for one Edge come in order, of different ones at the same time.
type Observer struct {
	Connected    func(Edge)
	Disconnected func(Edge)
	// InitialVersions tells, for each type when the edge first asks for it, what the edge
	// holds already (nothing for a fresh one), and before it is answered: what
	// the callback sets is what the answer is made from.
	InitialVersions func(edge Edge, typeURL string, versions map[string]string)
	Acked           func(edge Edge, typeURL string, resources []NameVersion)
	// Nacked is also called when an edge comes back that refused the resource
	// before and would not be sent it again.
	Nacked func(edge Edge, refusal Nack)
	// Progress says that what Applied returns for the pool has changed.
	Progress func(pool string)
	Load     func(edge Edge, report LoadReport)
}

// resource is a Resource as it goes on the wire, made once for all streams.
type resource struct {
	wire       *discovery.Resource
	assignment string
}

func (r resource) version() string {
	if r.wire == nil {
		return ""
	}
	return r.wire.Version
}

func (r resource) same(o resource) bool {
	return r.version() == o.version() && r.assignment == o.assignment
}

func prepare(r Resource) resource {
	version := r.Version
	if version == "" {
		sum := sha256.Sum256(r.Body.GetValue())
		version = hex.EncodeToString(sum[:8])
	}
	assignment := r.Assignment
	if assignment == "" {
		assignment = r.Name
	}
	return resource{wire: &discovery.Resource{Name: r.Name, Version: version, Resource: r.Body}, assignment: assignment}
}
