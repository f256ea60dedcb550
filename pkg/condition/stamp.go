package condition

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxMessage is the API server's limit for a condition's message, in bytes.
const maxMessage = 32768

// Set sets a condition in a list of stored conditions. The transition time changes
// only with the status.
func Set(list *[]metav1.Condition, c Condition, generation int64, now metav1.Time) {
	if c.Generation != 0 {
		generation = c.Generation
	}
	meta.SetStatusCondition(list, metav1.Condition{
		Type: c.Type, Status: c.Status, Reason: c.Reason, Message: Shortened(c.Message, maxMessage-len(ellipsis)),
		ObservedGeneration: generation, LastTransitionTime: now,
	})
}

// Stamped are the wanted conditions as an object stores them: sorted by type, and
// with this generation. The transition time is that of a stored condition of the
// same type and status, or else now. Stored conditions that are not wanted are left
// out, so Stamped is for objects whose conditions all have one writer. The inputs
// are not changed.
func Stamped(stored []metav1.Condition, wanted []Condition, generation int64, now time.Time) []metav1.Condition {
	transition := metav1.NewTime(now.UTC().Truncate(time.Second)) // as the API stores it
	stamped := make([]metav1.Condition, 0, len(wanted))
	for _, w := range wanted {
		if old := meta.FindStatusCondition(stored, w.Type); old != nil {
			stamped = append(stamped, *old)
		}
		Set(&stamped, w, generation, transition)
	}
	slices.SortFunc(stamped, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return stamped
}

const ellipsis = "..."

// Shortened is a text. One of more than length bytes is cut after at most length
// bytes, between two runes, and "..." replaces the rest.
func Shortened(text string, length int) string {
	if len(text) <= length {
		return text
	}
	for length > 0 && !utf8.RuneStart(text[length]) {
		length--
	}
	return text[:length] + ellipsis
}
