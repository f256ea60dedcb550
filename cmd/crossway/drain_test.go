package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/registration"
)

// drainFixture is an API server with a MemberCluster, and the load that a hub would have: clients in us send demand for
// shop/web, which us-west and eu-west export, with a capacity of 60 each.
type drainFixture struct {
	*drainer
	t      *testing.T
	demand float64
	open   float64
	said   bytes.Buffer
}

func newDrainFixture(t *testing.T, name string) *drainFixture {
	hub := newHub(t)
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Region: "us", Accepted: true}}
	hub.create(m)
	f := &drainFixture{t: t, demand: 50}
	f.drainer = &drainer{hub: hub, load: f.fleetLoad, now: func(context.Context) (time.Time, error) { return time.Now(), nil },
		progress: &progress{out: &f.said}, member: name, interval: 20 * time.Millisecond, began: time.Now(), noRoom: map[string]bool{}}
	return f
}

func (f *drainFixture) drain() *v1alpha1.MemberDrain {
	m := &v1alpha1.MemberCluster{}
	testkit.Must(f.t, f.hub.Get(f.t.Context(), client.ObjectKey{Name: f.member}, m))
	return m.Spec.Drain
}

func (f *drainFixture) fleetLoad(context.Context) (fleetload.Load, error) {
	drained := registration.Drained(f.drain(), time.Now())
	sample := func(metric, region, cluster string, v float64) fleetload.Sample {
		return fleetload.Sample{Metric: metric, Import: "shop/web", Region: region, Cluster: cluster, Value: v}
	}
	return fleetload.LoadOf([]fleetload.Replica{{Samples: []fleetload.Sample{
		sample(fleetload.DemandMetric, "us", "", f.demand),
		sample(fleetload.ShareMetric, "us", f.member, 1-drained), sample(fleetload.ShareMetric, "us", "eu-west", drained),
		sample(fleetload.CapacityMetric, "", f.member, 60), sample(fleetload.CapacityMetric, "", "eu-west", 60),
		sample(fleetload.ReadyMetric, "", f.member, 6), sample(fleetload.ReadyMetric, "", "eu-west", 6),
		sample(fleetload.OpenMetric, "us", f.member, f.open),
		{Metric: fleetload.DrainedMetric, Cluster: f.member, Value: drained},
	}}}), nil
}

func (f *drainFixture) wantSaid(texts ...string) {
	f.t.Helper()
	for _, text := range texts {
		if !strings.Contains(f.said.String(), text) {
			f.t.Errorf("no %q in\n%s", text, f.said.String())
		}
	}
}

func TestDrainAndBack(t *testing.T) {
	f := newDrainFixture(t, "drain-back")
	f.open = 3
	result, err := f.move(t.Context(), 100, 3*time.Second)
	testkit.Must(t, err)
	f.wantSaid("import shop/web: 50 requests per second move; clients send 50, and the others take 60 (eu-west 60)",
		"answers 0 % of 50 requests/s in us; 3 open")
	if d := f.drain(); d == nil || d.Percent != 100 || d.From != 0 || d.EndTime.Sub(d.StartTime.Time) != 3*time.Second {
		t.Errorf("spec.drain is %+v", d)
	}
	testkit.Must(t, f.awaitIdle(t.Context(), 100*time.Millisecond, &result))
	var out bytes.Buffer
	testkit.Must(t, result.print(&out))
	if want := "drain-back is drained; 3 requests are open there and go on until they end: shop/web 3\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
	f.open = 0
	testkit.Must(t, f.awaitIdle(t.Context(), time.Minute, &result))
	if len(result.Open) != 0 {
		t.Errorf("open: %v", result.Open)
	}
	_, err = f.move(t.Context(), 0, 2*time.Second)
	testkit.Must(t, err)
	if d := f.drain(); d != nil {
		t.Errorf("after undrain spec.drain is %+v", d)
	}
}

// Ctrl-C leaves the requests where they are, whenever somebody goes on.
func TestDrainInterrupted(t *testing.T) {
	f := newDrainFixture(t, "drain-stop")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(2*time.Second, cancel)
	result, err := f.move(ctx, 100, time.Minute)
	if exitCode(err) != exitInterrupted || !strings.Contains(err.Error(), "of the requests for drain-stop go to others") {
		t.Errorf("exit code %d: %v", exitCode(err), err)
	}
	d := f.drain()
	if d == nil || d.Percent != result.Drained || d.StartTime != nil || d.EndTime != nil || d.Percent == 0 || d.Percent > 50 {
		t.Fatalf("spec.drain is %+v", d)
	}
	stoppedAt := d.Percent
	_, err = f.move(t.Context(), 100, 0)
	testkit.Must(t, err)
	if d := f.drain(); d.Percent != 100 || d.From != stoppedAt || d.StartTime != nil {
		t.Errorf("spec.drain is %+v", d)
	}
}

func TestDrainWarns(t *testing.T) {
	f := newDrainFixture(t, "drain-warns")
	f.demand = 90
	result, err := f.move(t.Context(), 100, 0)
	testkit.Must(t, err)
	f.wantSaid("Warning: import shop/web: clients send 90 requests per second, and the others take 60 (eu-west 60): each gets 1.5 times what it takes",
		"no room for shop/web (90 requests/s, the others take 60)")
	if n := strings.Count(f.said.String(), "Warning:"); n != 1 || len(result.NoRoom) != 1 {
		t.Errorf("%d warnings in\n%s", n, f.said.String())
	}
	f.demand = 40
	f.look(t.Context(), 100, 100, &result)
	f.wantSaid("import shop/web: the others have room again")
}

// Who changes the drain meanwhile is not overwritten.
func TestDrainChangedBySomebodyElse(t *testing.T) {
	f := newDrainFixture(t, "drain-other")
	time.AfterFunc(time.Second, func() { _ = f.write(t.Context(), &v1alpha1.MemberDrain{Percent: 7}) })
	if _, err := f.move(t.Context(), 100, time.Minute); err == nil || !strings.Contains(err.Error(), "somebody else has changed spec.drain") {
		t.Error(err)
	}
	if d := f.drain(); d.Percent != 7 {
		t.Errorf("spec.drain is %+v", d)
	}
}

// A hub whose load cannot be read drains nevertheless, and the command says that it does not know.
func TestDrainWithoutLoad(t *testing.T) {
	f := newDrainFixture(t, "drain-blind")
	load := f.load
	fails := 3
	f.load = func(ctx context.Context) (fleetload.Load, error) {
		if fails--; fails > 0 {
			return fleetload.Load{}, errors.New("no pod of the hub is ready")
		}
		return load(ctx)
	}
	_, err := f.move(t.Context(), 100, 0)
	testkit.Must(t, err)
	f.wantSaid("so it is not known whether the others have room: no pod of the hub is ready", "the load of the fleet cannot be read; the hub goes on")
}

// A hub that does not answer for a while, as when its API server starts again, is asked until it does.
func TestDrainThroughAnOutage(t *testing.T) {
	f := newDrainFixture(t, "drain-outage")
	now, fails := f.now, 3
	f.now = func(ctx context.Context) (time.Time, error) {
		if fails--; fails < 2 && fails >= 0 {
			return time.Time{}, apierrors.NewServiceUnavailable("it starts")
		}
		return now(ctx)
	}
	_, err := f.move(t.Context(), 100, 0)
	testkit.Must(t, err)
	f.wantSaid("the hub does not answer, and goes on: ", "it starts")
	load := f.load
	fails = 3
	f.load = func(ctx context.Context) (fleetload.Load, error) {
		if fails--; fails > 0 {
			return fleetload.Load{}, errors.New("no pod of the hub is ready")
		}
		return load(ctx)
	}
	result := drainResult{}
	testkit.Must(t, f.awaitIdle(t.Context(), time.Minute, &result))
}

// A member that is not accepted gets no requests: there is nothing to wait for.
func TestDrainOfWhoIsNotAccepted(t *testing.T) {
	f := newDrainFixture(t, "drain-outside")
	m := &v1alpha1.MemberCluster{}
	testkit.Must(t, f.hub.Get(t.Context(), client.ObjectKey{Name: f.member}, m))
	m.Spec.Accepted = false
	testkit.Must(t, f.hub.Update(t.Context(), m))
	_, err := f.move(t.Context(), 100, time.Minute)
	testkit.Must(t, err)
	f.wantSaid("is not accepted")
	if d := f.drain(); d.Percent != 100 || d.From != 100 {
		t.Errorf("spec.drain is %+v", d)
	}
}

func TestDrainOnTheCommandLine(t *testing.T) {
	hub := newHub(t)
	hub.create(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "drain-line"}, Spec: v1alpha1.MemberClusterSpec{Region: "us"}})
	hub.refused(exitUsage, "drain drain-line --over -1s", "--over must not be negative")
	hub.refused(1, "drain drain-lime", `MemberCluster "drain-lime" does not exist, or name one that exists (`)
	now, err := timeOf(envtestkit.Config(t))(t.Context())
	testkit.Must(t, err)
	if off := time.Since(now); off < -2*time.Second || off > 10*time.Second {
		t.Errorf("the API server says that it is %s", now)
	}
}
