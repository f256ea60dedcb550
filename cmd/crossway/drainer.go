package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/fleetload/reader"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// loadInterval is the least time between two looks at the load, and loadLooks how many there are in a long drain.
	loadInterval = 2 * time.Second
	loadLooks    = 24
	// settleTimeout is how long after its end a drain may take to be seen in the shares.
	settleTimeout = 30 * time.Second
	// stopTimeout is how long Ctrl-C may take to stop a drain.
	stopTimeout = 10 * time.Second
	// noAnswerTimeout is how long the hub's API server may not answer: a restart takes less.
	noAnswerTimeout = 2 * time.Minute
)

// drainer moves the requests of one member to the others, and back. The hub does that, as spec.drain says; a drainer
// writes it, and looks.
type drainer struct {
	hub  client.Client
	load func(context.Context) (fleetload.Load, error)
	// now is the time of the hub's API server: this machine's clock may be wrong.
	now      func(context.Context) (time.Time, error)
	progress *progress
	member   string
	interval time.Duration // between two looks, at least
	began    time.Time
	noRoom   map[string]bool // imports that were warned of
	line     string          // of progress, the last one
}

// drainer returns a drainer of one member, and a function that ends it.
func (a *app) drainer(member string) (*drainer, func(), error) {
	hub, config, err := a.clientOf(a.kubeconfig)
	if err != nil {
		return nil, nil, err
	}
	load, err := reader.New(config, a.namespace())
	if err != nil {
		return nil, nil, err
	}
	return &drainer{hub: hub, load: load.Read, now: timeOf(config), progress: a.progress, member: member, interval: loadInterval,
		began: time.Now(), noRoom: map[string]bool{}}, load.Close, nil
}

// timeOf asks an API server for the time: each of its answers has a date.
func timeOf(config *rest.Config) func(context.Context) (time.Time, error) {
	ask := func(ctx context.Context) (now time.Time, err error) {
		server, err := rest.HTTPClientFor(config)
		if err != nil {
			return now, err
		}
		url, _, err := rest.DefaultServerUrlFor(config)
		if err != nil {
			return now, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url.JoinPath("version").String(), nil)
		if err != nil {
			return now, err
		}
		response, err := server.Do(request)
		if err != nil {
			return now, err
		}
		now, err = http.ParseTime(response.Header.Get("Date"))
		return now, errors.Join(err, response.Body.Close())
	}
	return func(ctx context.Context) (time.Time, error) {
		now, err := ask(ctx)
		if err != nil {
			return now, fmt.Errorf("ask the hub for the time: %w", err)
		}
		return now, nil
	}
}

// drainResult is how far a drain came, and what is left.
type drainResult struct {
	Member  string           `json:"member"`
	Drained int32            `json:"drainedPercent"`
	Load    fleetload.Member `json:"load"`
	// Open are requests that have not ended, by import.
	Open []fleetload.OpenRequests `json:"openRequests,omitempty"`
	// NoRoom are the imports of which the others cannot take the requests, with numbers.
	NoRoom []fleetload.Room `json:"noRoom,omitempty"`
}

// move changes the part of the member's requests that others get, over a time, and returns when it has changed. Where ctx
// ends before, the part stays as it is then.
func (d *drainer) move(ctx context.Context, percent int32, over time.Duration) (drainResult, error) {
	result := drainResult{Member: d.member}
	var all v1alpha1.MemberClusterList
	if err := d.hub.List(ctx, &all); err != nil {
		return result, fmt.Errorf("list MemberClusters: %w", err)
	}
	m := memberOf(all.Items, d.member)
	if m == nil {
		return result, fmt.Errorf("MemberCluster %q does not exist%s", d.member, exists(all.Items))
	}
	if percent > 0 && !registration.Accepted(m) {
		d.progress.say("%s is not accepted, so it gets no requests; it will be drained when it is", d.member)
		result.Drained = percent
		return result, d.write(ctx, &v1alpha1.MemberDrain{Percent: percent, From: percent})
	}
	if percent > 0 {
		d.foretell(ctx)
	}
	now, err := d.now(ctx)
	if err != nil {
		return result, err
	}
	drain := &v1alpha1.MemberDrain{Percent: percent, From: percentAt(m.Spec.Drain, now)}
	if over > 0 {
		start, end := metav1.NewTime(now).Rfc3339Copy(), metav1.NewTime(now.Add(over)).Rfc3339Copy() // as the API server keeps them
		drain.StartTime, drain.EndTime = &start, &end
	}
	if err := d.write(ctx, drain); err != nil {
		return result, err
	}
	err = d.follow(ctx, drain, &result)
	d.progress.end()
	switch {
	case ctx.Err() != nil:
		return result, d.stop(context.WithoutCancel(ctx), drain, &result)
	case err == nil && percent == 0:
		err = d.answered(ctx, func() error { return d.write(ctx, nil) })
	}
	return result, err
}

func percentAt(drain *v1alpha1.MemberDrain, now time.Time) int32 {
	return int32(math.Round(100 * registration.Drained(drain, now)))
}

// write replaces spec.drain. A merge patch keeps the fields that it does not name.
func (d *drainer) write(ctx context.Context, drain *v1alpha1.MemberDrain) error {
	var value any
	if drain != nil {
		fields := map[string]any{"from": drain.From, "percent": drain.Percent, "startTime": nil, "endTime": nil}
		if drain.StartTime != nil && drain.EndTime != nil {
			fields["startTime"], fields["endTime"] = drain.StartTime, drain.EndTime
		}
		value = fields
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"drain": value}})
	if err != nil {
		return fmt.Errorf("write spec.drain of %s: %w", d.member, err)
	}
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: d.member}}
	if err := d.hub.Patch(ctx, m, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("write spec.drain of %s: %w", d.member, err)
	}
	return nil
}

// stop leaves the requests where they are, unless somebody else has changed the drain.
func (d *drainer) stop(ctx context.Context, drain *v1alpha1.MemberDrain, result *drainResult) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	err := d.answered(ctx, func() error {
		now, err := d.timeUnchanged(ctx, drain)
		if err != nil {
			return err
		}
		result.Drained = percentAt(drain, now)
		return d.write(ctx, &v1alpha1.MemberDrain{Percent: result.Drained, From: result.Drained})
	})
	if err != nil {
		return fmt.Errorf("%s could not be stopped, so the hub goes on: %w", d.member, err)
	}
	return marked{fmt.Errorf("stopped: %d %% of the requests for %s go to others; `crossway drain %[2]s` goes on, `crossway undrain %[2]s` takes it back",
		result.Drained, d.member), context.Canceled}
}

// answered asks until the hub answers, for at most noAnswerTimeout: it moves the requests without this command, too.
func (d *drainer) answered(ctx context.Context, ask func() error) error {
	for began := time.Now(); ; {
		err := ask()
		if !passing(err) || time.Since(began) >= noAnswerTimeout || ctx.Err() != nil {
			return err
		}
		d.line = d.progress.show(fmt.Sprintf("the hub does not answer, and goes on: %v", err), d.line, time.Since(d.began))
		if err := sleep(ctx, d.interval); err != nil {
			return err
		}
	}
}

// timeUnchanged is the time, or an error if somebody else has changed the drain.
func (d *drainer) timeUnchanged(ctx context.Context, drain *v1alpha1.MemberDrain) (time.Time, error) {
	now, err := d.now(ctx)
	if err != nil {
		return now, err
	}
	return now, d.unchanged(ctx, drain)
}

// unchanged is an error if somebody else has changed the drain.
func (d *drainer) unchanged(ctx context.Context, drain *v1alpha1.MemberDrain) error {
	m := &v1alpha1.MemberCluster{}
	if err := d.hub.Get(ctx, client.ObjectKey{Name: d.member}, m); err != nil {
		return err
	}
	if !apiequality.Semantic.DeepEqual(m.Spec.Drain, drain) {
		return fmt.Errorf("somebody else has changed spec.drain of MemberCluster %s meanwhile: kubectl get membercluster %[1]s -o yaml shows it", d.member)
	}
	return nil
}

// follow says how the shares move, until they have.
func (d *drainer) follow(ctx context.Context, drain *v1alpha1.MemberDrain, result *drainResult) error {
	interval, settled := d.interval, time.Time{}
	if drain.EndTime != nil {
		interval = max(interval, drain.EndTime.Sub(drain.StartTime.Time)/loadLooks)
	}
	for {
		if err := sleep(ctx, interval); err != nil {
			return err
		}
		var now time.Time
		err := d.answered(ctx, func() (err error) {
			now, err = d.timeUnchanged(ctx, drain)
			return err
		})
		if err != nil {
			return err
		}
		reached := d.look(ctx, drain.Percent, percentAt(drain, now), result)
		if registration.DrainChanges(drain, now) {
			interval = min(interval, max(drain.EndTime.Sub(now), d.interval))
			continue
		}
		if settled.IsZero() {
			interval, settled = d.interval, now.Add(settleTimeout)
		}
		switch {
		case reached:
			return nil
		case now.After(settled):
			return marked{fmt.Errorf("the shares have not moved %s after the end of the drain; last seen: %s", settleTimeout, d.line), errTimeout}
		}
	}
}

// sleep waits, for no longer than ctx.
func sleep(ctx context.Context, delay time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
		return nil
	}
}
