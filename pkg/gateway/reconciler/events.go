package reconciler

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// maxNoteLength is the API server's limit for the note of an Event, in bytes.
const maxNoteLength = 1024

// emitEvents emits an Event on each object that an edge has just rejected. The
// generation is in the reference, because client-go counts Events with equal
// references and reasons as one, whatever their notes (events.getKey).
func (r *Reconciler) emitEvents(rejected []rollout.Rejection) {
	if r.options.Events == nil || r.options.Leads != nil && !r.options.Leads() {
		return
	}
	for _, j := range rejected {
		note := condition.RouteRefusedByEdge(j.Message).Message
		if j.Ref.Kind == condition.Gateway {
			note = condition.GatewayRefusedByEdge(j.Message).Message
		}
		object := &corev1.ObjectReference{APIVersion: gatewayv1.GroupVersion.String(), Kind: string(j.Ref.Kind),
			Namespace: j.Ref.Name.Namespace, Name: j.Ref.Name.Name, UID: j.UID,
			FieldPath: fmt.Sprintf("metadata.generation{%d}", j.Generation)}
		note = strings.ToValidUTF8(note[:min(len(note), maxNoteLength)], "")
		r.options.Events.Eventf(object, nil, corev1.EventTypeWarning, condition.RefusedByEdge, "Publish", "%s", note)
	}
}
