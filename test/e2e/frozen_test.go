package e2e

import (
	"testing"

	"crossway.dev/crossway/internal/lab/load"
)

// While the hub's API server answers nothing, the hub is killed. It starts from its snapshot, and demand beyond capacity
// overflows and a cluster that is cut off is left out as always. Afterwards changes arrive again.
func TestHubRestartsWhileItsAPIServerIsFrozen(t *testing.T) {
	outage, err := story.FreezeHubAPI(t.Context(), true)
	check(t, err)
	t.Logf("%+v", outage)
	if outage.Failed > 0 || outage.Requests < 1000 {
		t.Errorf("%d requests failed, of at least %d", outage.Failed, outage.Requests)
	}
	if outage.Overflow.Seconds() > 10*2 { // the demo's bound, wider as all times here
		t.Errorf("overflow was in place after %s", outage.Overflow)
	}
	if outage.Restarts != 2 {
		t.Errorf("%d restarts, want those of both replicas, which the test made", outage.Restarts)
	}
	apply(t, story.Lab.Hub, routeTo("shop", "thawed", "thawed.example.com", "store", 8080))
	check(t, story.Await(t.Context(), story.Client("us", "thawed.example.com", 20), "a new route", func(s load.Sample) bool { return s.Status == 200 }))
}
