package condition

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxMessage is the longest message that a metav1.Condition takes, in bytes.
const maxMessage = 32768

// Set puts a condition into a list that an object stores. The transition time
// changes with the status only.
func Set(list *[]metav1.Condition, c Condition, generation int64, now metav1.Time) {
	meta.SetStatusCondition(list, metav1.Condition{
		Type: c.Type, Status: c.Status, Reason: c.Reason, Message: Shortened(c.Message, maxMessage-len(ellipsis)),
		ObservedGeneration: generation, LastTransitionTime: now,
	})
}

// Stamped gives wanted conditions the form that an object stores: sorted by
// type, at this generation, and with the transition time of a stored condition
// of the same type and status, or now for one that is new or changed. It is for
// objects whose conditions all have one writer: a stored type that is not
// wanted is left out. The inputs stay as they are.
func Stamped(stored []metav1.Condition, wanted []Condition, generation int64, now time.Time) []metav1.Condition {
	precise := metav1.NewTime(now.UTC().Truncate(time.Second)) // as the API stores it
	stamped := make([]metav1.Condition, 0, len(wanted))
	for _, w := range wanted {
		if old := meta.FindStatusCondition(stored, w.Type); old != nil {
			stamped = append(stamped, *old)
		}
		Set(&stamped, w, generation, precise)
	}
	slices.SortFunc(stamped, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return stamped
}

const ellipsis = "..."

// Shortened is a text cut after the given number of bytes, at the edge of a
// rune, with "..." in place of the rest.
func Shortened(text string, length int) string {
	if len(text) <= length {
		return text
	}
	for length > 0 && !utf8.RuneStart(text[length]) {
		length--
	}
	return text[:length] + ellipsis
}
