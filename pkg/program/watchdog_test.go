package program

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"crossway.dev/crossway/internal/testkit"
)

// A part that is stuck fails the check after 30 s, and one that turns again mends it. An idle part
// answers; before the parts run nobody is asked; the end of the program waits for no answer.
func TestWatchdogNoticesWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locked := make(chan struct{}, 1) // a lock that is held while it is full
		locked <- struct{}{}
		running := make(chan struct{})
		w := &Watchdog{After: running, Pings: map[string]func(context.Context) error{
			"the idle loop":  func(context.Context) error { return nil },
			"the stuck loop": func(context.Context) error { locked <- struct{}{}; <-locked; return nil },
		}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Start(ctx) }()
		time.Sleep(time.Hour)
		testkit.Must(t, w.Check(nil))
		close(running)
		time.Sleep(maxSilence)
		testkit.Must(t, w.Check(nil))
		time.Sleep(2 * time.Second)
		if err := w.Check(nil); err == nil || !strings.Contains(err.Error(), "the stuck loop is stuck: it has not answered for 32s") {
			t.Errorf("got %v", err)
		}
		says := Metrics{Program: "hub", Watchdog: w} // its nil Leadership always leads
		testkit.Must(t, testutil.CollectAndCompare(says, strings.NewReader(`
# HELP crossway_leads 1 on the replica that leads, which alone writes to the API server.
# TYPE crossway_leads gauge
crossway_leads{program="hub"} 1
# HELP crossway_stuck 1 for a part of the program that has not answered for 30 s; /healthz fails then.
# TYPE crossway_stuck gauge
crossway_stuck{part="the idle loop",program="hub"} 0
crossway_stuck{part="the stuck loop",program="hub"} 1
`), "crossway_leads", "crossway_stuck"))
		<-locked
		time.Sleep(time.Second)
		testkit.Must(t, w.Check(nil))
		locked <- struct{}{}
		time.Sleep(time.Hour)
		if w.Check(nil) == nil {
			t.Error("stuck again, and not noticed")
		}
		cancel()
		testkit.Must(t, <-ended)
		<-locked
	})
}
