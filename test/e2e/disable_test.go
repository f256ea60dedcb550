package e2e

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/internal/demo"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// Figures that are good prove nothing of a mechanism, unless they are bad
// without it. Here the hub is installed anew with mechanisms switched off
// (--disable, see cmd/hub), two at a time that have nothing to do with each
// other, and the figures go bad. That they are good with them is TestStory's,
// which comes after; switches of clusters are not in the story, so they are
// measured both ways here.
func TestMechanismsAreNeeded(t *testing.T) {
	restore(t, func(ctx context.Context) error { return installHub(ctx) })
	apply(t, story.Lab.Hub, switching(0))
	testkit.Must(t, story.Await(t.Context(), story.Client("us", "switch.example.com", 20), "the route", func(s load.Sample) bool { return s.Status == 200 }))

	testkit.Must(t, installHub(t.Context(), "overflow", "make-before-break"))
	t.Run("overflow", func(t *testing.T) {
		if eu := servedIn(t, "eu-west", 30); eu > 0.01 {
			t.Errorf("eu-west still serves %.2f of 30 rps in us", eu)
		}
	})
	t.Run("make before break", func(t *testing.T) {
		if failed := failedInSwitches(t); failed == 0 {
			t.Error("nothing failed although routes do not wait for their clusters")
		}
	})
	testkit.Must(t, installHub(t.Context()))
	t.Run("make before break is there", func(t *testing.T) {
		if failed := failedInSwitches(t); failed > 0 {
			t.Errorf("%d requests failed although routes wait for their clusters", failed)
		}
	})
	testkit.Must(t, installHub(t.Context(), "retries", "kept-shares"))
	t.Run("retries", func(t *testing.T) {
		if failed := failedInACut(t); failed == 0 {
			t.Error("nothing failed although nothing is retried: retries are not what saves requests")
		}
	})
	t.Run("kept shares", func(t *testing.T) {
		if changed := changedByARestart(t); len(changed) == 0 {
			t.Error("nothing changed although the restarted hub learns nothing from its edges")
		}
	})
}

// installHub installs the hub with mechanisms switched off, and waits until no
// other hub is left and every edge has found it.
func installHub(ctx context.Context, disabled ...string) error {
	values := ""
	if len(disabled) > 0 {
		values = fmt.Sprintf("image: {repository: crossway/hub-faults}\nextraArgs: ['--disable=%s']\n", strings.Join(disabled, ","))
	}
	if err := story.Lab.InstallHub(ctx, values); err != nil {
		return err
	}
	if err := story.AwaitHubs(ctx); err != nil {
		return err
	}
	if err := awaitLeader(ctx); err != nil {
		return err
	}
	return story.AwaitConnected(ctx)
}

// awaitLeader waits until a replica that runs writes: a killed leader's Lease
// lasts 15 s, and without a leader exports are not merged.
func awaitLeader(ctx context.Context) error {
	leader := ""
	for deadline := time.Now().Add(testkit.Timeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		hubs, err := story.Hubs(ctx)
		if err != nil {
			return err
		}
		if leader, err = story.Leader(ctx); err != nil {
			return err
		}
		if slices.ContainsFunc(hubs, func(hub corev1.Pod) bool { return hub.Name == leader }) {
			return nil
		}
	}
	return fmt.Errorf("the hub's Lease is held by %q, which is no replica", leader)
}

// servedIn is the part of a rate at checkout (20 rps in each of two clusters)
// that a cluster serves, from when it has settled.
func servedIn(t *testing.T, cluster string, rate float64) float64 {
	samples := load.Run(t.Context(), story.Client("us", "checkout.example.com", rate), int(rate*12))
	return load.Part(lastSeconds(samples, 6), cluster)
}

func failedInACut(t *testing.T) int {
	recorder := load.Start(t.Context(), story.Client("us", "store.example.com", 150))
	defer recorder.Stop()
	awaitPart(t, recorder, "us-west to serve its half", func(part float64) bool { return part > 0.4 }, "us-west")
	testkit.Must(t, story.Lab.Cut("us-west"))
	time.Sleep(8 * time.Second)
	testkit.Must(t, story.Lab.Restore("us-west"))
	awaitPart(t, recorder, "us-west to serve its half again", func(part float64) bool { return part > 0.4 }, "us-west")
	return load.Failed(recorder.Stop())
}

// switching is a route that sends to one of two imports: each switch is a
// cluster that its edges do not have yet.
func switching(step int) string {
	return routeTo("shop", "switch", "switch.example.com", []string{"store", "checkout"}[step%2], 8080)
}

func failedInSwitches(t *testing.T) int {
	recorder := load.Start(t.Context(), story.Client("us", "switch.example.com", 200))
	defer recorder.Stop()
	for step := range 21 {
		testkit.Must(t, story.Lab.Hub.Apply(t.Context(), []byte(switching(step))))
	}
	time.Sleep(time.Second)
	return load.Failed(recorder.Stop())
}

// changedByARestart is what the Envoys say that a restart of the hub changed,
// while overflow is in place and demand is constant.
func changedByARestart(t *testing.T) []string {
	recorder := load.Start(t.Context(), story.Client("us", "checkout.example.com", 30))
	defer recorder.Stop()
	awaitPart(t, recorder, "overflow", func(part float64) bool { return math.Abs(part-1.0/3) < 0.1 }, "eu-west")
	time.Sleep(8 * time.Second) // longer than what demand is averaged over
	before, err := story.Resources(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, story.KillHub(t.Context(), 2*time.Second))
	time.Sleep(3 * time.Second)
	testkit.Must(t, story.AwaitConnected(t.Context()))
	time.Sleep(10 * time.Second)
	after, err := story.Resources(t.Context())
	testkit.Must(t, err)
	return demo.ChangedResources(before, after)
}
