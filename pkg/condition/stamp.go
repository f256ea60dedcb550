package condition

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxMessage is the longest message that a metav1.Condition takes, in bytes.
const maxMessage = 32768

// Stamped gives wanted conditions the form that an object stores: sorted by
// type, at this generation, and with the transition time of a stored condition
// of the same type and status, or now for one that is new or changed. For
// objects whose conditions all have one writer: stored types that are not
// wanted are left out. The inputs stay as they are.
func Stamped(stored []metav1.Condition, wanted []Condition, generation int64, now time.Time) []metav1.Condition {
	stamped := make([]metav1.Condition, 0, len(wanted))
	for _, w := range wanted {
		c := metav1.Condition{
			Type: w.Type, Status: w.Status, Reason: w.Reason, Message: shortened(w.Message),
			ObservedGeneration: generation,
			LastTransitionTime: metav1.NewTime(now.UTC().Truncate(time.Second)), // as precise as the API stores it
		}
		i := slices.IndexFunc(stored, func(s metav1.Condition) bool { return s.Type == w.Type && s.Status == w.Status })
		if i >= 0 {
			c.LastTransitionTime = stored[i].LastTransitionTime
		}
		stamped = append(stamped, c)
	}
	slices.SortFunc(stamped, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return stamped
}

func shortened(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
}
