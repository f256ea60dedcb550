package apply

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSameConditions(t *testing.T) {
	of := func(types ...string) []metav1.Condition {
		var conditions []metav1.Condition
		for _, name := range types {
			conditions = append(conditions, metav1.Condition{Type: name, LastTransitionTime: metav1.NewTime(time.Unix(1_800_000_000, 0).UTC())})
		}
		return conditions
	}
	for _, test := range []struct {
		name           string
		stored, wanted []metav1.Condition
		owned          []string
		want           bool
	}{
		{"nothing stored, nothing wanted", nil, []metav1.Condition{}, nil, true},
		{"another order", of("Ready", "Conflict"), of("Conflict", "Ready"), nil, true},
		{"one is missing", of("Ready"), of("Conflict", "Ready"), nil, false},
		{"one is no longer wanted", of("Conflict", "Ready"), of("Ready"), nil, false},
		{"one of another manager", of("Ready", "Audited"), of("Ready"), []string{"Ready", "Conflict"}, true},
		{"an owned one is no longer wanted", of("Ready", "Conflict"), of("Ready"), []string{"Ready", "Conflict"}, false},
		{"another status", of("Ready"), []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}}, nil, false},
	} {
		if got := SameConditions(test.stored, test.wanted, test.owned...); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
