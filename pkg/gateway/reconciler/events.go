package reconciler

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// maxNoteLength is the API server's limit for the note of an Event, in bytes.
const maxNoteLength = 1024

// announce logs what edges refuse, with Envoy's message, and emits an Event on the
// EdgePool of each, and on each route that a whole pool refuses. The former is by the
// replica that the edge is connected to, which alone has judged it; the latter by the
// leader, since every replica finds that. An edge can refuse without end, so logs and
// Events about one pool are limited.
func (r *Reconciler) announce(ctx context.Context, reviewed rollout.Reviewed) {
	for _, j := range reviewed.Judgements {
		if !r.mayAnnounce(j.Pool) {
			continue
		}
		log.FromContext(ctx).Info("an edge refuses a resource", "pool", j.Pool, "edge", j.Node, "type", j.Nack.Resource.Type(), "name", j.Nack.Resource.Name,
			"version", j.Nack.Version, "message", j.Nack.Message, "candidates", len(j.Candidates), "rejected", fmt.Sprint(j.Rejected))
		if len(j.Candidates) == 0 || len(j.Rejected) > 0 {
			refusal := condition.EdgeRefusal{Node: j.Node, Routes: j.Rejected}
			if len(j.Rejected) == 0 {
				refusal.Resources = []string{j.Nack.Resource.String()}
			}
			object := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: string(condition.EdgePool), Name: j.Pool,
				FieldPath: fmt.Sprintf("status.edges{%s %s %s}", condition.Shortened(j.Node, 64), j.Nack.Resource.Type(), j.Nack.Version)}
			r.emit(object, condition.EdgePoolConfigurationRefused([]condition.EdgeRefusal{refusal}).Message)
		}
	}
	for _, f := range reviewed.Refused {
		if r.options.Leads != nil && !r.options.Leads() || !r.mayAnnounce(f.Pool) {
			continue
		}
		object := &corev1.ObjectReference{APIVersion: gatewayv1.GroupVersion.String(), Kind: string(f.Ref.Kind),
			Namespace: f.Ref.Name.Namespace, Name: f.Ref.Name.Name, UID: f.Version.UID,
			FieldPath: fmt.Sprintf("metadata.generation{%d %s}", f.Version.Generation, f.Pool)}
		r.emit(object, condition.RouteRefusedInPools(f.Version.Generation, []condition.PoolRefusal{poolRefusal(f)}).Message)
	}
}

// mayAnnounce says whether there may be another Event about a pool, which is a write.
func (r *Reconciler) mayAnnounce(pool string) bool {
	limit := r.limits[pool]
	if limit == nil {
		limit = rate.NewLimiter(1, 20)
		r.limits[pool] = limit
	}
	return limit.AllowN(r.options.Clock.Now(), 1)
}

// emit emits an Event. What the Event is about is in the reference,
// because client-go counts Events with equal references and reasons as one,
// whatever their notes (events.getKey).
func (r *Reconciler) emit(object *corev1.ObjectReference, note string) {
	if r.options.Events == nil {
		return
	}
	note = strings.ToValidUTF8(note[:min(len(note), maxNoteLength)], "")
	r.options.Events.Eventf(object, nil, corev1.EventTypeWarning, condition.RefusedByEdge, "Publish", "%s", note)
}

func poolRefusal(f rollout.Refusal) condition.PoolRefusal {
	refusal := condition.PoolRefusal{Pool: f.Pool, Message: f.Message}
	if f.Instead != nil {
		refusal.Instead = f.Instead.Generation
	}
	return refusal
}

// edgeRefusals are edges that refuse something, as conditions say it.
func edgeRefusals(edges []rollout.EdgeRefusal) []condition.EdgeRefusal {
	var refusals []condition.EdgeRefusal
	for _, e := range edges {
		refusal := condition.EdgeRefusal{Node: e.Node, Routes: e.Routes}
		for _, id := range e.Resources {
			refusal.Resources = append(refusal.Resources, id.String())
		}
		refusals = append(refusals, refusal)
	}
	return refusals
}
