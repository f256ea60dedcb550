package hub

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

const (
	// maxWakes is how many members may wait to be looked at for their evidence.
	maxWakes = 1024
	// wordsInterval is between two writes of a status if only what Reachable says in words
	// changes: of a silent member, one after the other says that it does not reach it.
	wordsInterval = 5 * time.Second
)

// Wake says that the evidence of a member has changed. It does not wait: what is lost is
// seen within registration.StatusInterval.
func (r *Registrar) Wake(cluster fleet.ClusterName) {
	select {
	case r.wakes <- event.GenericEvent{Object: &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: string(cluster)}}}:
	default:
	}
}

// onlyWords tells whether the messages of Reachable and Ready differ, or their reasons, which say by
// whose word, and nothing else: another member can change these without end.
func onlyWords(have, want []metav1.Condition) bool {
	differ := false
	for _, w := range want {
		h := meta.FindStatusCondition(have, w.Type)
		if h == nil || h.Status != w.Status || h.ObservedGeneration != w.ObservedGeneration {
			return false
		}
		if h.Message != w.Message || h.Reason != w.Reason { // Ready has those of its cause
			if w.Type != condition.MemberReachableType && w.Type != condition.MemberReadyType {
				return false
			}
			differ = true
		}
	}
	return differ && len(have) == len(want)
}
