package agent

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

const (
	// keptInterval is the time between two looks at an export that is kept.
	keptInterval = 10 * time.Second
	// vanishedDelay is how long after the last service vanished the agent decides
	// about them together: a list is handled object by object.
	vanishedDelay = 5 * time.Second
)

// withdrawalsManager is the field manager of the annotation on the Lease, apart from
// the Lease's own: each applies its fields alone.
const withdrawalsManager = v1alpha1.AgentFieldManager + "-withdrawals"

// withdrawals are what the agent found to withdraw at its start, or when its cluster's
// API server listed everything anew, as one does whose etcd was restored. While they are
// paused, what the hub has of these services is kept, until the cluster has them
// again or an admin lets them go. The pause is recorded on the agent's Lease, so that
// a restart in the midst of a restore does not take what is still lacking for a few
// exports that somebody deleted.
type withdrawals struct {
	mu       sync.Mutex
	begun    bool                       // guarded by mu
	pause    string                     // guarded by mu; empty: nothing is kept
	kept     map[fleet.ServiceName]bool // guarded by mu
	recorded string                     // guarded by mu: the pause on the Lease
	vanished map[fleet.ServiceName]bool // guarded by mu: services that nobody saw being deleted
	last     time.Time                  // guarded by mu: when the last of them vanished
	word     string                     // guarded by mu: the pause that an admin ended
}

// Heard takes note of the agent's Lease as the hub stored it.
func (e *Exporter) Heard(lease *coordinationv1.Lease) {
	e.hasContact()
	e.withdrawals.mu.Lock()
	defer e.withdrawals.mu.Unlock()
	e.withdrawals.read(lease)
}

// read takes the annotations of the Lease. The caller holds the lock.
func (w *withdrawals) read(lease *coordinationv1.Lease) {
	w.recorded, w.word = lease.Annotations[v1alpha1.AnnotationWithdrawalPaused], lease.Annotations[v1alpha1.AnnotationWithdraw]
}

// beginWithdrawals compares the hub with the member before the first key is handled,
// and ends a pause that has no reason any more.
func (e *Exporter) beginWithdrawals(ctx context.Context) error {
	w := &e.withdrawals
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun {
		if err := e.compare(ctx, func(fleet.ServiceName) bool { return true }); err != nil {
			return err
		}
		w.begun = true
	}
	if w.pause != "" && (len(w.kept) == 0 || w.word == w.pause) {
		log.FromContext(ctx).Info("exports that this cluster lacks are withdrawn again", "pause", w.pause, "byAdmin", w.word == w.pause)
		w.pause, w.kept = "", nil
	}
	if w.pause != w.recorded {
		return e.recordPause(ctx)
	}
	return nil
}

// compare fills pause and kept with candidates that the member lacks. The caller holds
// the lock, and the caches of both clusters are complete.
func (e *Exporter) compare(ctx context.Context, candidate func(fleet.ServiceName) bool) error {
	w := &e.withdrawals
	var onHub v1alpha1.MemberExportList
	if err := e.hub.List(ctx, &onHub, client.InNamespace(v1alpha1.MemberNamespace(e.cluster)), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list MemberExports: %w", err)
	}
	kept := map[fleet.ServiceName]bool{}
	for i := range onHub.Items {
		service := fleet.ServiceName(onHub.Items[i].Spec.Service)
		lacking, err := e.lacks(ctx, service)
		if err != nil {
			return err
		}
		if lacking && candidate(service) {
			kept[service] = true
		}
	}
	if len(kept) == 0 {
		return nil
	}
	lease, err := apply.Found(ctx, e.hubReader, e.leaseKey(), &coordinationv1.Lease{})
	if err != nil {
		return err
	}
	if lease != nil {
		w.read(lease)
	}
	switch {
	case w.recorded != "": // by an agent before this one
		w.pause, w.kept = w.recorded, kept
	case serviceexport.PausesWithdrawal(len(kept), len(onHub.Items)):
		w.pause, w.kept = serviceexport.PauseName(len(kept), len(onHub.Items), e.now()), kept
		log.FromContext(ctx).Info("nothing is withdrawn: this cluster lacks most of what the hub has of it, as after the loss of its etcd; "+
			"condition WithdrawalPaused of the MemberCluster says how to withdraw it", "lacking", len(kept), "onHub", len(onHub.Items), "pause", w.pause)
	}
	return nil
}

// lacks tells whether the member lacks a service that the hub has: it does not offer
// it, or has none of its endpoints' slices, as before kube-controller-manager made
// them.
func (e *Exporter) lacks(ctx context.Context, service fleet.ServiceName) (bool, error) {
	offered, err := e.offered(ctx, service)
	if err != nil || offered == nil {
		return err == nil, err
	}
	if len(e.slicesOf(ctx, client.InNamespace(service.Namespace), client.MatchingFields{indexService: service.Name})) > 0 {
		return false, nil
	}
	var pushed discoveryv1.EndpointSliceList
	err = e.hub.List(ctx, &pushed, client.InNamespace(v1alpha1.MemberNamespace(e.cluster)), client.UnsafeDisableDeepCopy,
		client.MatchingLabels{v1alpha1.LabelServiceNamespace: service.Namespace, v1alpha1.LabelServiceName: service.Name})
	return len(pushed.Items) > 0, err
}

// keeps tells whether what the hub has of a service stays although the member lacks
// it. One that the member has again, or the hub no more, is not kept any longer.
func (e *Exporter) keeps(ctx context.Context, service fleet.ServiceName) (bool, error) {
	w := &e.withdrawals
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.vanished[service] {
		if e.now().Before(w.last.Add(vanishedDelay)) {
			return true, nil
		}
		if err := e.compareVanished(ctx); err != nil {
			return true, err
		}
	}
	if w.pause == "" || !w.kept[service] {
		return false, nil
	}
	onHub, err := apply.Found(ctx, e.hub, e.memberExportKey(service), &v1alpha1.MemberExport{})
	if err != nil {
		return true, err
	}
	lacking, err := e.lacks(ctx, service)
	if err != nil || onHub != nil && lacking {
		return true, err
	}
	delete(w.kept, service)
	return false, nil
}

// compareVanished decides about services that vanished together. The caller holds the
// lock.
func (e *Exporter) compareVanished(ctx context.Context) error {
	w := &e.withdrawals
	if w.pause == "" {
		if err := e.compare(ctx, func(service fleet.ServiceName) bool { return w.vanished[service] }); err != nil {
			return err
		}
	} else {
		maps.Copy(w.kept, w.vanished)
	}
	if w.pause != w.recorded {
		if err := e.recordPause(ctx); err != nil {
			return err
		}
	}
	w.vanished = nil
	return nil
}

// notesVanished takes note of objects that a list lacks and that no event had
// announced as deleted.
func (e *Exporter) notesVanished(serviceOf func(client.Object) fleet.ServiceName) predicate.Funcs {
	return predicate.Funcs{DeleteFunc: func(d event.DeleteEvent) bool {
		if d.DeleteStateUnknown {
			w := &e.withdrawals
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.vanished == nil {
				w.vanished = map[fleet.ServiceName]bool{}
			}
			w.vanished[serviceOf(d.Object)], w.last = true, e.now()
		}
		return true
	}}
}

// recordPause writes the pause to the agent's Lease; empty: there is none. The caller
// holds the lock.
func (e *Exporter) recordPause(ctx context.Context) error {
	w, key := &e.withdrawals, e.leaseKey()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if w.pause != "" {
		lease.Annotations = map[string]string{v1alpha1.AnnotationWithdrawalPaused: w.pause}
	}
	if err := apply.Object(ctx, e.hub, withdrawalsManager, lease, client.DisableReadYourWritesConsistency); err != nil {
		return err
	}
	w.read(lease)
	return nil
}

func (e *Exporter) leaseKey() types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.MemberNamespace(e.cluster), Name: v1alpha1.AgentLease}
}
