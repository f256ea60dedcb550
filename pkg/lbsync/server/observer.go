package server

import (
	"time"

	"crossway.dev/crossway/pkg/lbsync/server/delta"
	"crossway.dev/crossway/pkg/registration"
)

// The values that a Server takes and gives.
type (
	Resource    = delta.Resource
	Snapshot    = delta.Snapshot
	Override    = delta.Override
	NameVersion = delta.NameVersion
	Nack        = delta.Nack
)

// Edge is one Envoy during one stream. Node is only the label that it gives
// itself; Identity is proven by its certificate. Source is the address that it
// connects from. Stream is unique in the life of
// the Server: two streams of one Envoy differ, of which one may be broken without
// the hub having noticed yet.
type Edge struct {
	Node     string
	Source   string
	Identity registration.EdgeIdentity
	Stream   uint64
	// Since is when the stream was opened.
	Since time.Time
	// CA is the common name of the CA that signed the certificate, which is valid between
	// CertificateBegin and CertificateEnd.
	CA                               string
	CertificateBegin, CertificateEnd time.Time
}

// EdgeState is what one connected edge has done with its pool's snapshots.
type EdgeState struct {
	Edge Edge
	delta.Progress
}

// Observer is notified of what edges do. Each func may be nil and must return
// quickly and not wait for the Server's streams; it may call the Server. No lock
// is held. Calls for one Edge come in order, calls for different ones at the same
// time.
type Observer struct {
	Connected    func(Edge)
	Disconnected func(Edge)
	// InitialVersions has, for each type when the edge first asks for it, the
	// versions that the edge has (none for a fresh one). It is called before the
	// response is made, so that it may still change what the edge should have.
	InitialVersions func(edge Edge, typeURL string, versions map[string]string)
	Acked           func(edge Edge, typeURL string, resources []NameVersion)
	// Nacked is also called when an edge reconnects that NACKed the resource before
	// and would not be sent it again.
	Nacked func(edge Edge, nack Nack)
	// Progress says that what Edges returns for the pool has changed.
	Progress func(pool string)
	Load     func(edge Edge, report LoadReport)
}
