package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// refusals are the slices that the hub did not take, which the conditions of their
// exports name. The zero value may be used, by any goroutine.
type refusals struct {
	mu      sync.Mutex
	slices  map[string]refusal // by name on the hub
	exports workqueue.TypedRateLimitingInterface[reconcile.Request]
}

type refusal struct {
	service fleet.ServiceName
	serviceexport.Refusal
}

// notify makes the queue of exports known.
func (r *refusals) notify(_ context.Context, exports workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exports = exports
	return nil
}

// note takes note of what the hub answered to a slice, or that there is nothing to be
// refused any more, and adds its export to the queue if that changes anything.
func (r *refusals) note(hubName string, w wantedSlice, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, refused := r.slices[hubName]
	now := refusal{before.service, serviceexport.Refusal{Answer: answerTo(err)}}
	switch {
	case w.source != nil && now.Answer != "":
		now.service, _ = serviceexport.ServiceOf(w.source)
		now.Slice = w.source.Name
		if r.slices == nil {
			r.slices = map[string]refusal{}
		}
		r.slices[hubName] = now
	case err == nil && refused:
		delete(r.slices, hubName)
	default:
		return
	}
	if r.exports != nil && before != now {
		r.exports.Add(reconcile.Request{NamespacedName: types.NamespacedName(now.service)})
	}
}

// of are the refusals of one service's slices.
func (r *refusals) of(service fleet.ServiceName) (of []serviceexport.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.slices)) {
		if r.slices[name].service == service {
			of = append(of, r.slices[name].Refusal)
		}
	}
	return of
}

// answerTo is the hub's answer to an object that it does not take as it is; "": there is
// no such answer.
func answerTo(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && (apierrors.IsInvalid(err) || isQuotaExceeded(err)) {
		return status.Status().Message
	}
	return ""
}

// isQuotaExceeded knows the answer by the API server's words (its plugin ResourceQuota).
func isQuotaExceeded(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}
