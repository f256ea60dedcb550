package main

import (
	"context"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"crossway.dev/crossway/pkg/condition/writer"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/lbsync/server"
	memberapi "crossway.dev/crossway/pkg/memberapi/server"
	"crossway.dev/crossway/pkg/program"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	"crossway.dev/crossway/pkg/replica/link"
)

// observedParts are the parts of the hub that have metrics or a dump of their state.
type observedParts struct {
	statuses *writer.Writer
	gateways *reconciler.Reconciler
	loop     *endpoints.Loop
	xds      *server.Server
	members  *memberapi.Server
	// certificates are those of edges.
	certificates *registrationhub.EdgeCertificates
	links        *link.Link
	gossip       *hubGossip
}

// registerMetrics registers the metrics of the parts, and these.
func (p observedParts) registerMetrics(others ...prometheus.Collector) {
	metrics.Registry.MustRegister(p.loop, p.members)
	metrics.Registry.MustRegister(others...)
	for _, c := range [][]prometheus.Collector{p.statuses.Collectors(), p.xds.Collectors(), p.gateways.Collectors(), p.certificates.Collectors(), p.links.Collectors()} {
		metrics.Registry.MustRegister(c...)
	}
}

// debug serves what the hub holds in memory, for a person who looks for a fault.
func (p observedParts) debug(address string, log logr.Logger) program.Debug {
	return program.Debug{Address: address, Log: log.WithName("debug"), Dumps: map[string]program.Dump{
		"model": p.gateways.DumpModel, "rollout": p.gateways.DumpRollout,
		"state":    func(context.Context) (any, error) { return p.loop.Dump(), nil },
		"members":  func(context.Context) (any, error) { return p.members.Dump(), nil },
		"edges":    func(context.Context) (any, error) { return p.xds.Describe(), nil },
		"replicas": func(context.Context) (any, error) { return p.links.Describe(), nil },
		"gossip":   func(context.Context) (any, error) { return p.gossip.dump(), nil },
	}}
}
