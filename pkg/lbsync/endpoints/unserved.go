package endpoints

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

const (
	reasonUnserved   = "AddressesNotServed"
	reasonNoSlice    = "NoEndpointSlices"
	unservedInterval = 10 * time.Second // between two looks at all Services of the hub's cluster
	repeatUnserved   = 30 * time.Minute // an Event is kept for an hour (kube-apiserver --event-ttl)
)

// unservedReports are what was said about Services of the hub's cluster.
type unservedReports struct {
	at   time.Time // of the last look
	said map[fleet.ServiceName]unservedReport
}

type unservedReport struct {
	what state.Unserved
	at   time.Time
}

// tellUnserved emits an Event on each Service of the hub's cluster that routes name and that has addresses which get no
// requests, or no EndpointSlice, where this replica leads. l.mu is held.
func (l *Loop) tellUnserved(now time.Time) {
	if l.config.Events == nil || now.Sub(l.unserved.at) < unservedInterval || l.config.Leads != nil && !l.config.Leads() {
		return
	}
	last := l.unserved.said
	l.unserved = unservedReports{at: now, said: map[fleet.ServiceName]unservedReport{}}
	for _, r := range l.state.UnservedAddresses() {
		said := last[r.Service]
		switch changed := said.what != r; {
		case changed && r.NoSlice: // it may be new: said at the next look
			said = unservedReport{what: r, at: now.Add(-repeatUnserved)}
		case changed || now.Sub(said.at) >= repeatUnserved:
			said = unservedReport{what: r, at: now}
			l.tell(r)
		}
		l.unserved.said[r.Service] = said
	}
}

// tell emits an Event on a Service.
func (l *Loop) tell(r state.Unserved) {
	event := func(reason, note string, args ...any) {
		object := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: r.Service.Namespace, Name: r.Service.Name}
		l.config.Events.Eventf(object, nil, corev1.EventTypeWarning, reason, "ServeEndpoints", note, args...)
	}
	if r.NoSlice {
		event(reasonNoSlice, "routes name this Service, and it has no EndpointSlice, so their requests are answered 503; give it a selector, "+
			"or make an EndpointSlice with label %s=%s", discoveryv1.LabelServiceName, r.Service.Name)
		return
	}
	event(reasonUnserved, "%d of %d addresses of its EndpointSlices get no requests from Gateways, %s for instance: they are outside of the hub's hubCIDRs; "+
		"add their range to hubCIDRs of the hub's chart if it belongs to this cluster alone", r.Count, r.Of, r.First)
}
