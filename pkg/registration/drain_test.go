package registration

import (
	"math"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

func TestDrained(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	at := func(seconds int) *metav1.Time {
		v := metav1.NewTime(start.Add(time.Duration(seconds) * time.Second))
		return &v
	}
	ramp := &v1alpha1.MemberDrain{Percent: 100, From: 20, StartTime: at(0), EndTime: at(100)}
	back := &v1alpha1.MemberDrain{Percent: 0, From: 60, StartTime: at(0), EndTime: at(60)}
	for _, c := range []struct {
		what    string
		drain   *v1alpha1.MemberDrain
		second  int
		drained float64
		changes bool
	}{
		{"no drain", nil, 0, 0, false},
		{"at once", &v1alpha1.MemberDrain{Percent: 100}, 0, 1, false},
		{"a part", &v1alpha1.MemberDrain{Percent: 43, From: 10}, 0, 0.43, false},
		{"not begun", ramp, -5, 0.2, true},
		{"begins", ramp, 0, 0.2, true},
		{"half way", ramp, 50, 0.6, true},
		{"ends", ramp, 100, 1, false},
		{"long over", ramp, 1000, 1, false},
		{"back, half way", back, 30, 0.3, true},
		{"back", back, 60, 0, false},
		{"no time at all", &v1alpha1.MemberDrain{Percent: 100, StartTime: at(0), EndTime: at(0)}, 0, 1, false},
		{"ends before it begins", &v1alpha1.MemberDrain{Percent: 100, StartTime: at(9), EndTime: at(0)}, 5, 1, false},
		{"half of the times", &v1alpha1.MemberDrain{Percent: 100, StartTime: at(9)}, 0, 1, false},
	} {
		now := start.Add(time.Duration(c.second) * time.Second)
		if got := Drained(c.drain, now); math.Abs(got-c.drained) > 1e-9 {
			t.Errorf("%s: %v of the requests go to others, want %v", c.what, got, c.drained)
		}
		if got := DrainChanges(c.drain, now); got != c.changes {
			t.Errorf("%s: changes is %v", c.what, got)
		}
	}
}

// A drain is one condition, whose text changes when the drain ends and not meanwhile.
func TestDrainedCondition(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	begin, end := metav1.NewTime(start), metav1.NewTime(start.Add(time.Minute))
	f := MemberFacts{Now: start}
	find := func(second int) string {
		f.Now = start.Add(time.Duration(second) * time.Second)
		for _, c := range Conditions(f) {
			if c.Type == condition.MemberDrainedType {
				return string(c.Status) + " " + c.Reason + ": " + c.Message
			}
		}
		return ""
	}
	if got := find(0); got != "" {
		t.Errorf("without a drain: %s", got)
	}
	f.Member.Spec.Drain = &v1alpha1.MemberDrain{Percent: 100, From: 20, StartTime: &begin, EndTime: &end}
	moving := "False Moving: the part of the cluster's requests that other clusters get goes from 20 to 100 %, until 2027-01-15T08:01:00Z"
	for _, second := range []int{-1, 1, 59} {
		if got := find(second); got != moving {
			t.Errorf("after %d s: %s", second, got)
		}
	}
	if got := find(60); !strings.HasPrefix(got, "True Drained: other clusters get 100 %") {
		t.Errorf("at the end: %s", got)
	}
	f.Member.Spec.Drain = &v1alpha1.MemberDrain{Percent: 43, From: 43}
	if got := find(0); !strings.HasPrefix(got, "False Partly: other clusters get 43 %") {
		t.Errorf("stopped: %s", got)
	}
}
