package endpoints

import (
	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// Reasons of Events on MemberClusters.
const (
	reasonHeldOut     = "TrafficHeldOut"
	reasonUnreachable = "TrafficUnreachable"
	reasonRestored    = "TrafficRestored"
)

// announce logs which members began or ceased to be held out, and emits Events on their MemberClusters.
func (l *Loop) announce(events []state.HealthEvent) {
	for _, e := range events {
		log := l.config.Log.WithValues("cluster", e.Cluster, "region", e.Region, "imports", e.Imports)
		switch {
		case e.Dead:
			log.Info("cluster held out: connections to it fail")
			l.emit(e, corev1.EventTypeWarning, reasonUnreachable, "connections from region %q fail for %d import(s); "+
				"all but 1 %% of their requests go to other clusters; check the network path from the edges to this cluster's pods")
		case e.HeldOut:
			log.Info("cluster held out: its requests fail")
			l.emit(e, corev1.EventTypeWarning, reasonHeldOut, "requests from region %q fail for %d import(s); "+
				"all but 1 %% of their requests go to other clusters; check the pods of these services in this cluster")
		default:
			log.Info("cluster no longer held out")
			l.emit(e, corev1.EventTypeNormal, reasonRestored, "requests from region %q for %d import(s) are sent to this cluster again")
		}
	}
}

// emit emits an Event on a MemberCluster, where this replica leads. The region is in the reference, because client-go
// counts Events with equal references and reasons as one, whatever their notes (events.getKey).
func (l *Loop) emit(e state.HealthEvent, kind, reason, note string) {
	member := l.state.MemberCluster(e.Cluster)
	if l.config.Events == nil || member == nil || l.config.Leads != nil && !l.config.Leads() {
		return
	}
	object := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "MemberCluster", Name: member.Name, UID: member.UID,
		FieldPath: "region{" + e.Region + "}"}
	l.config.Events.Eventf(object, nil, kind, reason, "DivideTraffic", note, e.Region, e.Imports)
}
