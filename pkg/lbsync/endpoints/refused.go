package endpoints

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

const (
	reasonRefused   = "AddressesNotServed"
	reasonWithout   = "NoEndpointSlices"
	refusedInterval = 10 * time.Second // between two looks at all Services of the hub's cluster
	refusedAgain    = 30 * time.Minute // an Event is kept for an hour (kube-apiserver --event-ttl)
)

// refusals are what was said about Services of the hub's cluster.
type refusals struct {
	at   time.Time // of the last look
	said map[fleet.ServiceName]refusal
}

type refusal struct {
	what state.Refused
	at   time.Time
}

// tellRefused emits an Event on each Service of the hub's cluster that routes name and that has addresses which get no
// requests, or no EndpointSlice, where this replica leads. l.mu is held.
func (l *Loop) tellRefused(now time.Time) {
	if l.config.Events == nil || now.Sub(l.refusals.at) < refusedInterval || l.config.Leads != nil && !l.config.Leads() {
		return
	}
	last := l.refusals.said
	l.refusals = refusals{at: now, said: map[fleet.ServiceName]refusal{}}
	for _, r := range l.state.RefusedAddresses() {
		said := last[r.Service]
		switch changed := said.what != r; {
		case changed && r.Without: // it may be new: said at the next look
			said = refusal{what: r, at: now.Add(-refusedAgain)}
		case changed || now.Sub(said.at) >= refusedAgain:
			said = refusal{what: r, at: now}
			l.tell(r)
		}
		l.refusals.said[r.Service] = said
	}
}

// tell emits an Event on a Service.
func (l *Loop) tell(r state.Refused) {
	event := func(reason, note string, args ...any) {
		object := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: r.Service.Namespace, Name: r.Service.Name}
		l.config.Events.Eventf(object, nil, corev1.EventTypeWarning, reason, "ServeEndpoints", note, args...)
	}
	if r.Without {
		event(reasonWithout, "routes name this Service, and it has no EndpointSlice, so their requests are answered 503; give it a selector, "+
			"or make an EndpointSlice with label %s=%s", discoveryv1.LabelServiceName, r.Service.Name)
		return
	}
	event(reasonRefused, "%d of %d addresses of its EndpointSlices get no requests from Gateways, %s for instance: they are outside of the hub's hubCIDRs; "+
		"add their range to hubCIDRs of the hub's chart if it belongs to this cluster alone", r.Count, r.Of, r.First)
}
