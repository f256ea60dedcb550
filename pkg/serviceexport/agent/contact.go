package agent

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// contact is whether the hub takes the agent's Lease, which is renewed every ten seconds. A
// cluster that is cut off sees by it why its exports do not change. The zero value may be
// used, by any goroutine.
type contact struct {
	mu      sync.Mutex
	last    time.Time   // when the hub stored the Lease
	lost    bool        // that is long ago: exports say so
	loses   *time.Timer // after the last time
	exports workqueue.TypedRateLimitingInterface[reconcile.Request]
}

// notify makes the queue of exports known.
func (c *contact) notify(_ context.Context, exports workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exports = exports
	return nil
}

// hasContact takes note that the hub stored the Lease.
func (e *Exporter) hasContact() {
	c := &e.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = e.now()
	if c.loses == nil {
		c.loses = time.AfterFunc(v1alpha1.SilenceOfExports, e.losesContact)
	}
	c.loses.Reset(v1alpha1.SilenceOfExports)
	if c.lost {
		c.lost = false
		e.addAll(c.exports)
	}
}

// losesContact has all exports say that the hub has not stored the Lease for long.
func (e *Exporter) losesContact() {
	e.contact.mu.Lock()
	defer e.contact.mu.Unlock()
	e.contact.lost = true
	e.addAll(e.contact.exports)
}

// addAll adds all exports to the queue.
func (e *Exporter) addAll(queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	var list mcsv1beta1.ServiceExportList
	if queue == nil || e.member.List(context.Background(), &list, client.DisableReadYourWritesConsistency, client.UnsafeDisableDeepCopy) != nil {
		return // the cache is stopping: all come again with the next start
	}
	for i := range list.Items {
		queue.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
}

// mark adds to what the hub said last that there is no contact with it, and since when.
func (c *contact) mark(a answer) answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range a.conditions {
		if c.lost && a.conditions[i].Type == condition.ExportReady {
			a.conditions[i] = condition.ExportWithoutHub(a.conditions[i], c.last)
		}
	}
	return a
}
