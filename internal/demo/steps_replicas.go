package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// busyLoad is 300 requests per second of clients in us: 240 for an import of which us-west takes 160, so that two thirds
// of them stay and one goes to eu-west, and 60 for one without a rate.
type busyLoad struct{ busy, store *load.Recorder }

// startBusy starts the load, and returns when the overflow is in place.
func (s *Story) startBusy(ctx context.Context) (busyLoad, error) {
	for _, cluster := range []string{"us-west", "eu-west"} {
		c, err := s.Lab.Cluster(cluster)
		if err != nil {
			return busyLoad{}, err
		}
		if err := c.Apply(ctx, render("busy.yaml", nil)); err != nil {
			return busyLoad{}, err
		}
	}
	if err := s.Lab.Hub.Apply(ctx, render("busy-hub.yaml", nil)); err != nil {
		return busyLoad{}, err
	}
	if err := s.AwaitAnswers(ctx, s.Client("us", "busy.example.com", 20), "busy.example.com"); err != nil {
		return busyLoad{}, err
	}
	l := busyLoad{load.Start(ctx, s.Client("us", "busy.example.com", 240)), load.Start(ctx, s.Client("us", "store.example.com", 60))}
	if _, err := s.overflowInPlace(ctx, l.busy); err != nil {
		l.stop()
		return busyLoad{}, err
	}
	return l, nil
}

func (l busyLoad) stop() { l.busy.Stop(); l.store.Stop() }

// lossOf is how many requests failed from one time to another, and of how many.
func (s *Story) lossOf(l busyLoad, begin, end time.Time) (failed, requests float64) {
	for _, recorder := range []*load.Recorder{l.busy, l.store} {
		samples := load.Between(recorder.Samples(), begin, end)
		s.explainFailures(samples)
		failed, requests = failed+float64(load.Failed(samples)), requests+float64(len(samples))
	}
	return failed, requests
}

// shareOff is how many points us-west's part of the busy import was at most off what it was in the 10 s before, in any
// five seconds until end.
func shareOff(samples []load.Sample, begin, end time.Time) (points float64, had float64) {
	const window = 5 * time.Second
	had = load.Part(load.Between(samples, begin.Add(-10*time.Second), begin), "us-west")
	for at := begin; !at.Add(window).After(end); at = at.Add(time.Second) {
		points = max(points, 100*math.Abs(load.Part(load.Between(samples, at, at.Add(window)), "us-west")-had))
	}
	return points, had
}

// replicas shows what clients and Envoys notice of a hub that loses one replica, its leader and the network between its
// replicas, and that is upgraded, while the load goes on.
func (s *Story) replicas(ctx context.Context) error {
	if err := s.AwaitHubs(ctx); err != nil {
		return err
	}
	l, err := s.startBusy(ctx)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := s.loseReplicas(ctx, l); err != nil {
		return err
	}
	return s.upgrade(ctx, l)
}

// loseReplicas kills one replica of the hub, then the one that leads, and then takes the network between the two away for
// a while, and asks the Envoys what all that changed.
func (s *Story) loseReplicas(ctx context.Context, l busyLoad) error {
	begin := time.Now()
	before, err := s.Resources(ctx)
	for _, act := range []func(context.Context) error{s.killFollower, s.killLeader, s.split, s.AwaitConnected} {
		if err == nil {
			err = act(ctx)
		}
	}
	if err != nil {
		return err
	}
	back := time.Now()
	sleep(ctx, 15*time.Second)
	settled, settledErr := s.Resources(ctx)
	sleep(ctx, 10*time.Second)
	after, err := s.Resources(ctx)
	if err := errors.Join(settledErr, err); err != nil {
		return err
	}
	end := time.Now()
	busy := l.busy.Samples()
	off, had := shareOff(busy, begin, end)
	s.note("us-west's part of 240 rps was %.1f %%; in each second from the first kill: %s", 100*had,
		partBySecond(busy, "us-west", begin, int(end.Sub(begin).Seconds())))
	s.note("the replicas reached each other again after %s", back.Sub(begin).Round(time.Second))
	failed, requests := s.lossOf(l, begin, end)
	s.set("replica_failed", failed)
	s.set("replica_requests", requests)
	s.set("replica_share_points", off)
	others, late := slices.DeleteFunc(ChangedResources(before, after), isEndpoints), ChangedResources(settled, after)
	for _, name := range append(others, late...) {
		s.note("  changed: %s", name)
	}
	s.set("replica_changed_resources", float64(len(others)))
	s.set("replica_late_changes", float64(len(late)))
	return nil
}

// isEndpoints says of a line of ChangedResources whether it is about the endpoints of a cluster (EDS): the statistics of
// one cluster, "<edge> cluster.<name>.update_success".
func isEndpoints(changed string) bool {
	_, name, _ := strings.Cut(changed, " ")
	return strings.HasPrefix(name, "cluster.")
}

// killFollower kills the replica that does not lead, and returns when it is ready again.
func (s *Story) killFollower(ctx context.Context) error {
	return s.killHub(ctx, func(hub corev1.Pod, leader string) bool { return hub.Name != leader })
}

// killLeader kills the replica that leads.
func (s *Story) killLeader(ctx context.Context) error {
	return s.killHub(ctx, func(hub corev1.Pod, leader string) bool { return hub.Name == leader })
}

func (s *Story) killHub(ctx context.Context, which func(hub corev1.Pod, leader string) bool) error {
	hubs, err := s.Hubs(ctx)
	if err != nil {
		return err
	}
	leader, err := s.Leader(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(hubs, func(hub corev1.Pod) bool { return which(hub, leader) })
	if i < 0 {
		return fmt.Errorf("%q leads, and none of the hub's %d replicas is to be killed", leader, len(hubs))
	}
	had, err := s.connected(ctx, "us")
	if err != nil {
		return err
	}
	if err := s.Lab.Hub.KillPod(lab.System, hubs[i].Name, 5*time.Second); err != nil {
		return err
	}
	sleep(ctx, 5*time.Second)
	if err := s.AwaitHubs(ctx); err != nil {
		return err
	}
	now, err := s.connected(ctx, "us")
	s.note("%s killed (%s leads); edges of us before: %v, when it was ready again: %v", hubs[i].Name, leader, had, now)
	return err
}

// split takes the network between the two replicas away for a while, with edges of one pool on both sides.
func (s *Story) split(ctx context.Context) error {
	if _, err := s.awaitSpread(ctx, "us"); err != nil {
		return err
	}
	hubs, err := s.Hubs(ctx)
	if err != nil {
		return err
	}
	a, b := hubs[0].Status.PodIP, hubs[1].Status.PodIP
	if err := s.Lab.CutBetween(a, b); err != nil {
		return err
	}
	sleep(ctx, s.Times.Split)
	has, err := s.connected(ctx, "us")
	s.note("edges of us at the end of the split: %v", has)
	return errors.Join(err, s.Lab.RestoreBetween(a, b))
}

// upgrade rolls the hub to another version, replica by replica.
func (s *Story) upgrade(ctx context.Context, l busyLoad) error {
	begin := time.Now()
	err := s.Lab.InstallHub(ctx, "image: {repository: crossway/hub-next}")
	for _, await := range []func(context.Context) error{s.AwaitHubs, s.areNew, s.AwaitConnected} {
		if err == nil {
			err = await(ctx)
		}
	}
	took := time.Since(begin)
	sleep(ctx, 8*time.Second)
	end := time.Now()
	failed, requests := s.lossOf(l, begin, end)
	if err != nil {
		return err
	}
	off, had := shareOff(l.busy.Samples(), begin, end)
	s.note("both replicas were new ones after %s; us-west's part of 240 rps was %.1f %%, and at most %.1f points off it meanwhile", took.Round(time.Second), 100*had, off)
	s.set("upgrade_failed", failed)
	s.set("upgrade_requests", requests)
	return nil
}
