package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// A pool that is gone has no edges that refuse something.
func TestNoMetricOfAPoolThatIsGone(t *testing.T) {
	e := &sink{}
	r := New(Options{Publisher: e, Assigner: e})
	for _, pools := range [][]v1alpha1.EdgePool{make([]v1alpha1.EdgePool, 1), nil} {
		r.input.Pools = pools
		r.publish(t.Context(), model.Model{}, nil)
		r.poolReports(nil)
		if n := testutil.CollectAndCount(r.metrics.refusing); n != len(pools) {
			t.Errorf("%d pools have a metric, want %d", n, len(pools))
		}
	}
}

// A pool whose spec.nearest another one's overrides says whose, and what to do.
func TestNearestIgnored(t *testing.T) {
	pool := func(name string, second int64, region string, nearest ...string) v1alpha1.EdgePool {
		p := v1alpha1.EdgePool{Spec: v1alpha1.EdgePoolSpec{Region: region, Nearest: nearest}}
		p.Name, p.CreationTimestamp.Time = name, time.Unix(second, 0)
		return p
	}
	r := New(Options{})
	r.input.Pools = []v1alpha1.EdgePool{
		pool("a", 3, "us", "asia"), pool("b", 2, "us", "eu"), pool("c", 1, "us"), pool("d", 4, "us", "eu"), pool("e", 5, "eu", "asia"),
	}
	messages := map[string]string{}
	for _, report := range r.poolReports(rollout.Answers{"a": {Edges: make([]rollout.EdgeAnswers, 1)}}) {
		name, message := report.Ref.Name.Name, report.Conditions[0].Message
		messages[name] = message
		if ignored := strings.Contains(message, "spec.nearest"); ignored != (name == "a") {
			t.Errorf("%s says %q", name, message)
		}
	}
	want := `edges are connected to the hub; spec.nearest does not count: that of EdgePool "b" decides for region "us"; write the same here, or leave it out`
	if got := messages["a"]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
