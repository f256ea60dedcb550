package endpoints

import (
	"slices"
	"time"

	"golang.org/x/time/rate"
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

// An edge that lies may hold a member out and take it back with each of its reports. What is said of a member and a region
// is said announceBurst times at once, then every announceInterval; the last of what waits is said last.
const announceBurst, announceInterval = 6, 10 * time.Second

// announcement is what is yet to be said of one member and one region.
type announcement struct {
	limiter *rate.Limiter
	waiting []state.HealthEvent
}

// announce logs which members began or ceased to be held out, and emits Events on their MemberClusters. l.mu is held.
func (l *Loop) announce(events []state.HealthEvent) {
	now := l.config.Clock.Now()
	for _, e := range events {
		about := state.HealthEvent{Region: e.Region, Cluster: e.Cluster}
		a := l.announcements[about]
		if a == nil {
			a = &announcement{limiter: rate.NewLimiter(rate.Every(announceInterval), announceBurst)}
			l.announcements[about] = a
		}
		a.waiting = append(slices.DeleteFunc(a.waiting, func(w state.HealthEvent) bool { return w.HeldOut == e.HeldOut && w.Dead == e.Dead }), e)
	}
	for about, a := range l.announcements {
		if len(a.waiting) == 0 && a.limiter.TokensAt(now) >= announceBurst {
			delete(l.announcements, about) // a new one may say as much
			continue
		}
		if len(a.waiting) > 0 && a.limiter.AllowN(now, 1) {
			for _, e := range a.waiting {
				l.announceOne(e)
			}
			a.waiting = nil
		}
	}
}

func (l *Loop) announceOne(e state.HealthEvent) {
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
