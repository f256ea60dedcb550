package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/test/chaos"
)

// chaosEnds is how long what changed last may take, once nothing is wrong any more: a hub that was killed is silent about
// what was withdrawn meanwhile, and members keep that for a minute.
const chaosEnds = 3 * time.Minute

// TestChaos: whatever is killed, cut off and frozen when, members and clients see only what package chaos allows, and in
// the end all have what is exported. CROSSWAY_SEED repeats a plan. It is not part of make test: each run is another one
// (make chaos). It is bounded in time, and a run that is killed leaves nothing: the lab ends with its process.
func TestChaos(t *testing.T) {
	if os.Getenv("CROSSWAY_CHAOS") == "" {
		t.Skip("make chaos runs it")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CROSSWAY_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		check(t, err)
	}
	c := newChaosRun(t)
	shape := chaos.Shape{Members: memberNames, Services: []string{"s0", "s1", "s2", "s3", "s4"}, Replicas: len(c.hubs), Over: 90 * time.Second, LongestFault: 10 * time.Second}
	plan := chaos.Plan(seed, shape)
	t.Logf("CROSSWAY_SEED=%d", seed)
	for _, step := range plan {
		t.Log(step)
	}
	ctx, stop := context.WithTimeout(t.Context(), shape.Over+chaosEnds+2*time.Minute)
	defer stop()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers sync.WaitGroup
	for _, m := range c.all() {
		watchers.Go(func() { c.watch(watching, m) })
	}
	recorders := c.clients(ctx)
	c.carryOut(ctx, plan)
	c.awaitEnd(ctx)
	stopWatching()
	watchers.Wait()
	c.judge(recorders)
}

// chaosRun carries out a plan. What it knows of what is exported is guarded by mu.
type chaosRun struct {
	*shared
	hubs   []corev1.Pod
	agents map[string]corev1.Pod

	mu      sync.Mutex
	parts   *chaos.Parts
	service *chaos.Service
}

// chaosHost is what clients call: pods of store, exported from any of the members.
const chaosHost = "chaos.example.com"

const chaosService = `
apiVersion: v1
kind: Service
metadata: {name: chaos, namespace: shop}
spec: {selector: {app: store}, ports: [{name: http, port: 8080}]}
`

const chaosExport = `
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: chaos, namespace: shop}
`

func newChaosRun(t *testing.T) *chaosRun {
	c := &chaosRun{shared: newShared(t), agents: map[string]corev1.Pod{}, parts: chaos.NewParts(), service: chaos.NewService()}
	var err error
	c.hubs, err = story.Hubs(t.Context()) // also while the hub's API server is frozen
	check(t, err)
	for _, m := range c.all() {
		pods, err := m.Client.CoreV1().Pods(lab.System).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=crossway-member-agent"})
		check(t, err)
		c.agents[m.Name] = pods.Items[0]
		apply(t, m.Cluster, chaosService)
	}
	apply(t, story.Lab.Hub, routeTo("shop", "chaos", chaosHost, "chaos", 8080))
	for _, m := range c.all() {
		c.toggle(m)
		restore(t, func(ctx context.Context) error { return m.Delete(ctx, []byte(chaosExport)) })
	}
	for _, region := range story.Lab.Regions {
		check(t, story.Await(t.Context(), story.Client(region, chaosHost, 20), chaosHost, func(s load.Sample) bool { return s.Status == 200 }))
	}
	return c
}

// clients are those of each region.
func (c *chaosRun) clients(ctx context.Context) map[string]*load.Recorder {
	out := map[string]*load.Recorder{}
	for _, region := range story.Lab.Regions {
		out[region] = load.Start(ctx, story.Client(region, chaosHost, 25))
	}
	return out
}

// carryOut does each step at its time, and ends each fault at its own; it returns when all have ended. Where the machine
// is late, the rest of the plan is late too: faults of one target never overlap.
func (c *chaosRun) carryOut(ctx context.Context, plan []chaos.Step) {
	var faults sync.WaitGroup
	defer faults.Wait()
	begin := time.Now()
	c.Logf("the plan begins at %s", begin.Format("15:04:05.000"))
	for _, step := range plan {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(begin.Add(step.At))):
		}
		begin = time.Now().Add(-step.At)
		switch step.Act {
		case chaos.Change:
			c.change(c.member(step.Member), chaos.Part{Service: step.Service, Cluster: step.Member}, step.Number)
		case chaos.Toggle:
			c.toggle(c.member(step.Member))
		default:
			from := time.Now()
			heal, err := c.fault(step)
			c.Must(err)
			faults.Go(func() {
				select {
				case <-ctx.Done():
				case <-time.After(step.For):
				}
				if err := heal(); err != nil {
					c.Errorf("heal %s: %v", step, err)
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				c.service.Fault(step, from, time.Now())
			})
		}
	}
}

func (c *chaosRun) member(name string) member {
	return c.all()[slices.Index(memberNames, name)]
}

// fault begins a fault; heal ends it.
func (c *chaosRun) fault(step chaos.Step) (heal func() error, err error) {
	nothing := func() error { return nil }
	kill := func(pods ...corev1.Pod) error {
		for _, pod := range pods {
			if err := story.Lab.Hub.KillPod(pod.Namespace, pod.Name, step.For); err != nil {
				return err
			}
		}
		return nil
	}
	between := func(a, b corev1.Pod) (func() error, error) {
		return func() error { return story.Lab.RestoreBetween(a.Status.PodIP, b.Status.PodIP) }, story.Lab.CutBetween(a.Status.PodIP, b.Status.PodIP)
	}
	switch step.Act {
	case chaos.KillHub:
		return nothing, kill(c.hubs[step.Replica])
	case chaos.KillHubs:
		return nothing, kill(c.hubs...)
	case chaos.KillAgent:
		pod := c.agents[step.Member]
		return nothing, c.member(step.Member).KillPod(pod.Namespace, pod.Name, step.For)
	case chaos.CutMember:
		return func() error { return story.Lab.Restore(step.Member) }, story.Lab.Cut(step.Member)
	case chaos.CutHubs:
		return between(c.hubs[0], c.hubs[1])
	case chaos.CutGossip:
		return between(c.agents[step.Member], c.agents[step.Other])
	case chaos.FreezeHub:
		story.Lab.Hub.FreezeAPIServer()
		return func() error { story.Lab.Hub.ThawAPIServer(); return nil }, nil
	}
	return nil, fmt.Errorf("%s is no fault", step.Act)
}

// toggle exports or withdraws a member's part of the service that clients call.
func (c *chaosRun) toggle(m member) {
	c.mu.Lock()
	exports := c.service.Exports(m.Name, time.Now())
	c.mu.Unlock()
	if exports {
		c.Must(m.Apply(c.Context(), []byte(chaosExport)))
		return
	}
	c.mu.Lock()
	c.service.Withdraws(m.Name, time.Now())
	c.mu.Unlock()
	c.Must(m.Delete(c.Context(), []byte(chaosExport)))
}

// change exports a part that is not exported, or else changes its address or withdraws it.
func (c *chaosRun) change(m member, p chaos.Part, number int) {
	address := fmt.Sprintf("10.%d.200.%d", 1+slices.Index(memberNames, p.Cluster), number)
	c.mu.Lock()
	_, exported := c.parts.Address(p)
	withdraws := exported && number%2 == 0
	if withdraws {
		c.parts.Withdraw(p)
	} else {
		c.parts.Export(p, address)
	}
	c.mu.Unlock()
	meta := metav1.ObjectMeta{Namespace: c.namespace, Name: p.Service}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: p.Service}
	export := &mcsv1beta1.ServiceExport{ObjectMeta: meta}
	switch {
	case withdraws:
		c.Must(m.api.Delete(c.Context(), export))
	case exported:
		c.Must(m.api.Patch(c.Context(), slice, client.RawPatch("application/json-patch+json",
			[]byte(`[{"op":"replace","path":"/endpoints/0/addresses/0","value":"`+address+`"}]`))))
	default:
		for _, o := range []client.Object{slice, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("http", 80)}}}} {
			_ = m.api.Delete(c.Context(), o.DeepCopyObject().(client.Object)) // of the last time
			c.Must(m.api.Create(c.Context(), o))
		}
		c.Must(m.api.Create(c.Context(), export))
	}
}

// shows is the addresses that a member has of each part, joined by blanks.
func (c *chaosRun) shows(ctx context.Context, m member) (map[chaos.Part]string, error) {
	var list discoveryv1.EndpointSliceList
	err := m.api.List(ctx, &list, client.InNamespace(c.namespace), client.HasLabels{mcsv1beta1.LabelSourceCluster})
	has := map[chaos.Part]string{}
	for _, s := range list.Items {
		p := chaos.Part{Service: s.Labels[mcsv1beta1.LabelServiceName], Cluster: s.Labels[mcsv1beta1.LabelSourceCluster]}
		for _, e := range s.Endpoints {
			has[p] = strings.TrimSpace(has[p] + " " + e.Addresses[0])
		}
	}
	return has, err
}

// watch compares what a member shows with what it may, until ctx ends.
func (c *chaosRun) watch(ctx context.Context, m member) {
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		c.mu.Lock()
		expected := c.parts.Expected(m.Name) // before it is asked
		c.mu.Unlock()
		shown, err := c.shows(ctx, m)
		if err != nil {
			continue
		}
		c.mu.Lock()
		for _, wrong := range c.parts.Compare(m.Name, expected, shown) {
			c.Errorf("%s: %s", time.Now().Format("15:04:05.000"), wrong)
		}
		c.mu.Unlock()
	}
}

// awaitEnd waits, once nothing is wrong any more, until everybody has what is exported and every cluster is ready.
func (c *chaosRun) awaitEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, chaosEnds)
	defer cancel()
	c.mu.Lock()
	want, exporters := c.parts.Text(), c.service.Exporters()
	c.mu.Unlock()
	for _, m := range c.all() {
		c.settles(ctx, m.Name+" to show what is exported", func() error {
			shown, err := c.shows(ctx, m)
			if got := chaos.Text(shown); err == nil && got != want {
				err = fmt.Errorf("it shows\n%s\nand exported is\n%s", got, want)
			}
			return err
		})
	}
	c.settles(ctx, "every cluster to be ready", func() error {
		out, err := story.Lab.Hub.Kubectl(ctx, nil, "get", "memberclusters", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if n := strings.Count(out, " True\n"); err == nil && n != len(memberNames) {
			err = errors.New(out)
		}
		return err
	})
	for _, region := range story.Lab.Regions {
		c.settles(ctx, fmt.Sprintf("clients of %s to be served by %v alone", region, exporters), func() error {
			samples := load.Run(ctx, story.Client(region, chaosHost, 50), 50)
			good := len(samples) - load.Failed(samples)
			if part := load.Part(samples, exporters...); len(exporters) > 0 && (good < len(samples) || math.Abs(part-1) > 1e-9) {
				return fmt.Errorf("%d of %d are answered, %.2f of them by %v", good, len(samples), part, exporters)
			}
			if len(exporters) == 0 && good > 0 {
				return fmt.Errorf("%d of %d are answered", good, len(samples))
			}
			return nil
		})
	}
}

// settles waits for an answer without an error.
func (c *chaosRun) settles(ctx context.Context, what string, ask func() error) {
	for {
		err := ask()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			c.Errorf("%s after the chaos, waited for %s: %v", chaosEnds, what, err)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// judge says which answers the model does not allow.
func (c *chaosRun) judge(recorders map[string]*load.Recorder) {
	var answers []chaos.Answer
	for region, recorder := range recorders {
		for _, s := range recorder.Stop() {
			answers = append(answers, chaos.Answer{At: s.At, End: s.At.Add(s.Took), Region: region, Status: s.Status, Cluster: s.Cluster, Error: s.Error})
		}
	}
	slices.SortFunc(answers, func(a, b chaos.Answer) int { return a.At.Compare(b.At) })
	failed := 0
	for _, a := range answers {
		if a.Status != 200 {
			failed++
		}
	}
	c.Logf("%d answers, %d of them failures", len(answers), failed)
	wrong := c.service.Judge(answers)
	for i, text := range wrong {
		if i == 10 {
			c.Errorf("... and %d more", len(wrong)-i)
			break
		}
		c.Error(text)
	}
	if len(answers) < 1000 {
		c.Errorf("only %d answers", len(answers))
	}
}
