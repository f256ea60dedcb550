package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab"
)

// ScalePart is the part that has a fleet of its own: many members behind two hub replicas.
const ScalePart = "scale"

// hubReplicas is how many hub replicas the fleet of ScalePart has.
const hubReplicas = 2

// ScaleLabConfig is the lab of ScalePart: regions us and eu, with Envoys, and a member with an agent in each.
func ScaleLabConfig() lab.Config {
	return lab.Config{Members: []lab.Member{{Name: "us-west", Region: "us", Zone: "us-west-1"}, {Name: "eu-west", Region: "eu", Zone: "eu-west-1"}}}
}

// ScaleLabInstall is how Crossway is installed there: as shipped, but for what is needed to look into the hub.
func ScaleLabInstall() lab.InstallOptions {
	return lab.InstallOptions{Hub: fmt.Sprintf("replicas: %d\nlogLevel: debug\nextraArgs: [--debug-address=%s]\n", hubReplicas, debugAddress)}
}

// debugAddress is where a hub has its profiles, inside of its pod.
const debugAddress = "127.0.0.1:6060"

// Scale is a fleet of many members. Its methods run one at a time.
type Scale struct {
	fleet    *lab.Lab
	out      io.Writer
	profiles string // directory for profiles of the hub; empty: none
	hub      client.WithWatch
	pods     []string // of the hub's replicas
	log      *Log     // of all replicas
	envoys   []edge
	members  []*mockMember
	edges    []*mockEdge
	readers  []*reader
	turn     int             // counts changes, so that each is another
	life     context.Context // of agents, edges and readers
	figures  Figures
}

// NewScale prepares a fleet that was just installed (ScaleLabConfig, ScaleLabInstall) for a number of members. Agents and
// edges that it starts live until ctx ends. Profiles of the hub go to a directory, unless that is empty.
func NewScale(ctx context.Context, fleet *lab.Lab, members int, profiles string, out io.Writer) (*Scale, error) {
	s := &Scale{fleet: fleet, out: out, profiles: profiles, figures: Figures{}, log: NewLog(), life: ctx}
	var err error
	if s.hub, err = clientOf(fleet.Hub.REST); err != nil {
		return nil, err
	}
	var pods corev1.PodList
	if err := s.hub.List(ctx, &pods, client.InNamespace(lab.System), client.MatchingLabels{"app.kubernetes.io/name": "crossway-hub"}); err != nil {
		return nil, err
	}
	if len(pods.Items) != hubReplicas {
		return nil, fmt.Errorf("%d pods of the hub, want %d", len(pods.Items), hubReplicas)
	}
	for _, p := range pods.Items {
		s.pods = append(s.pods, p.Name)
		logs, err := filepath.Glob(filepath.Join(fleet.LogDir, lab.System+"_"+p.Name+"_hub_*.log"))
		if err != nil || len(logs) != 1 {
			return nil, fmt.Errorf("want one log of pod %s in %s, found %q", p.Name, fleet.LogDir, logs)
		}
		if err := s.log.Tail(ctx, logs[0]); err != nil {
			return nil, err
		}
	}
	if s.envoys, err = envoysOf(ctx, s.hub, len(fleet.Regions)); err != nil {
		return nil, err
	}
	for n := range members {
		s.members = append(s.members, &mockMember{number: n, of: members})
	}
	return s, nil
}

// Measure measures everything once.
func (s *Scale) Measure(ctx context.Context) (Figures, error) {
	for _, phase := range []struct {
		what  string
		bound time.Duration
		do    func(context.Context) error
	}{
		{"pools and Gateways", time.Minute, s.makePools},
		{"members join", 2 * time.Minute, s.join},
		{"members export", 12 * time.Minute, s.export},
		{"routes, and edges that get everything", 4 * time.Minute, s.route},
		{"at rest", 6 * time.Minute, s.rest},
		{"single slices", 2 * time.Minute, func(ctx context.Context) error { return s.slices(ctx, "") }},
		{"a reader of the member API for each member", 3 * time.Minute, s.read},
		{"single slices, with readers", 2 * time.Minute, func(ctx context.Context) error { return s.slices(ctx, "read_") }},
		{"agents gossip", time.Minute, s.gossip},
		{"load reports of mock edges", time.Minute, s.load},
		{"restart of a replica, with readers and load", 2 * time.Minute, s.restartCold},
		{"restart of a replica without an API server", 2 * time.Minute, s.restartFrozen},
	} {
		began, before := time.Now(), cpuByProgram()
		limited, cancel := context.WithTimeout(ctx, phase.bound)
		err := phase.do(limited)
		cancel()
		if err != nil {
			return s.figures, fmt.Errorf("%d members: %s: %w", len(s.members), phase.what, err)
		}
		used, _ := cpuSince(before)
		fmt.Fprintf(s.out, "%d members: %s (%s)%s; CPU seconds: %s\n", len(s.members), phase.what, time.Since(began).Round(100*time.Millisecond), s.memory(), used)
		if err := s.profile(ctx, phase.what); err != nil {
			return s.figures, err
		}
	}
	return s.figures, nil
}

// memory is the replicas' resident memory, for a progress line.
func (s *Scale) memory() string {
	text := ""
	for _, p := range findHubs() {
		text += fmt.Sprintf("; hub %.0f MB, peak %.0f", p.rss(), p.peak())
	}
	return text
}

// settle waits until edges are sent nothing and statuses, which come last, are written.
func (s *Scale) settle(ctx context.Context) error {
	if err := s.log.Quiet(ctx, 3*time.Second); err != nil {
		return err
	}
	before, err := objectWrites(ctx, s.fleet.Hub)
	for err == nil {
		if err = pause(ctx, calmSpan); err != nil {
			return err
		}
		var now int
		if now, err = objectWrites(ctx, s.fleet.Hub); now-before < calm {
			return err
		}
		before = now
	}
	return err
}

// rest measures what the replicas use while nothing changes.
func (s *Scale) rest(ctx context.Context) error {
	began := time.Now()
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.figures["scale_settled_s"] = Value(time.Since(began).Seconds())
	hubs := findHubs()
	if len(hubs) != hubReplicas {
		return fmt.Errorf("%d hubs run, want %d", len(hubs), hubReplicas)
	}
	var before time.Duration
	for _, p := range hubs {
		before += p.cpu()
	}
	began = time.Now()
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	var used time.Duration
	var peaks, rests []float64
	for _, p := range hubs {
		used += p.cpu()
		peaks, rests = append(peaks, p.peak()), append(rests, p.rss())
	}
	s.figures["scale_rss_peak_mb"], s.figures["scale_rss_rest_mb"] = Value(slices.Max(peaks)), Value(slices.Max(rests))
	s.figures["scale_rss_peak_other_mb"], s.figures["scale_rss_rest_other_mb"] = Value(slices.Min(peaks)), Value(slices.Min(rests))
	s.figures["scale_cpu_idle_percent"] = Value(100 * float64(used-before) / float64(time.Since(began)) / hubReplicas)
	return nil
}

// clientIn makes requests as a process in a pod of the hub does.
func (s *Scale) clientIn(pod string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: s.fleet.Hub.DialerIn(lab.System, pod), DisableKeepAlives: true}}
}

// profile writes the heap profiles of all replicas after a phase.
func (s *Scale) profile(ctx context.Context, phase string) error {
	if s.profiles == "" {
		return nil
	}
	var errs []error
	for i, pod := range s.pods {
		errs = append(errs, s.fetch(ctx, pod, "heap", fmt.Sprintf("%s-%d.heap", strings.ReplaceAll(phase, " ", "-"), i)))
	}
	return errors.Join(errs...)
}

// fetch writes a profile of a replica to a file.
func (s *Scale) fetch(ctx context.Context, pod, what, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+debugAddress+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	answer, err := s.clientIn(pod).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.profiles, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.profiles, file), text, 0o644)
}
