package reconciler

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/condition/writer"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// hub is a hub without a server: a real API server and its caches, the loop,
// the writer of statuses, and edges that the test moves.
type hub struct {
	*testing.T
	api       client.Client
	scheme    *runtime.Scheme
	name      string // of the test's namespace, class and pool
	edges     *edges
	loop      *Reconciler
	records   *Records
	reports   *reports
	pools     *reports
	stop      func() // ends the caches and the writer
	namespace *corev1.Namespace
}

// edges take what is published, and answer what the test says.
type edges struct {
	mu          sync.Mutex
	published   map[string]envoy.Resources
	generation  map[string]uint64
	overrides   map[string]map[uint64]envoy.Resources
	of          string // the replica, in their names
	connected   int    // in each pool; their streams are 1, 2, ...
	lag         uint64 // how many snapshots they are behind
	firstStream uint64 // more after each restart of the hub
	// refuses is Envoy's message if an edge refuses a resource; empty: it takes it.
	refuses     func(stream uint64, r envoy.Resource) string
	pushes      int
	assignments []model.Assignment
}

func (e *edges) Publish(s rollout.Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range s.Resources.Clusters {
		if !slices.ContainsFunc(e.assignments, func(a model.Assignment) bool { return a.Key == c.Name }) {
			panic("cluster " + c.Name + " was published before the Assigner had its assignment")
		}
	}
	e.published[s.Pool], e.generation[s.Pool] = s.Resources, s.Generation
	if e.overrides == nil {
		e.overrides = map[string]map[uint64]envoy.Resources{}
	}
	e.overrides[s.Pool] = s.Overrides
	e.pushes++
}

func (e *edges) Progress(pool string) []rollout.EdgeProgress {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []rollout.EdgeProgress
	for stream := range uint64(e.connected) {
		all = append(all, e.answer(pool, stream+1))
	}
	return all
}

// answer is the progress of an edge that has just answered all that it should have.
func (e *edges) answer(pool string, stream uint64) rollout.EdgeProgress {
	g := rollout.EdgeProgress{Edge: rollout.Edge{Node: fmt.Sprint(e.of, "edge-", stream)}, Stream: e.firstStream + stream, Answered: e.generation[pool] - e.lag}
	for _, r := range e.given(pool, stream) {
		id := rollout.ResourceID{TypeURL: r.TypeURL, Name: r.Name}
		if e.refuses == nil || e.refuses(stream, r) == "" {
			continue
		}
		g.Nacked = append(g.Nacked, rollout.ResourceNack{Resource: id, Version: r.Version, Message: e.refuses(stream, r)})
	}
	return g
}

// given are the listeners and RouteConfigurations that an edge should have.
func (e *edges) given(pool string, stream uint64) []envoy.Resource {
	own := e.overrides[pool][e.firstStream+stream]
	given := slices.Concat(own.Listeners, own.Routes)
	for _, r := range slices.Concat(e.published[pool].Listeners, e.published[pool].Routes) {
		if !slices.ContainsFunc(given, func(o envoy.Resource) bool { return o.TypeURL == r.TypeURL && o.Name == r.Name }) {
			given = append(given, r)
		}
	}
	return given
}

// hasRoutes is the text of the RouteConfigurations that an edge should have.
func (e *edges) hasRoutes(pool string, stream uint64) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var text []byte
	for _, r := range e.given(pool, stream) {
		text = append(text, r.Body.GetValue()...)
	}
	return string(text)
}

func (e *edges) Withdraw(pool string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.published, pool)
}

func (e *edges) SetAssignments(assignments []model.Assignment, _ []model.ImportPolicy) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.assignments = assignments
}

// route is the RouteConfiguration of this name in a pool.
func (e *edges) route(pool, name string) envoy.Resource {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.published[pool].Routes {
		if r.Name == name {
			return r
		}
	}
	return envoy.Resource{}
}

func (e *edges) pushed() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pushes
}

// reports are the last reports, handed on to the real writer.
type reports struct {
	*writer.Source
	mu   sync.Mutex
	last []condition.Report
}

func (r *reports) Report(all []condition.Report) {
	r.mu.Lock()
	r.last = all
	r.mu.Unlock()
	r.Source.Report(all)
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{T: t, scheme: runtime.NewScheme(), edges: &edges{published: map[string]envoy.Resources{}, generation: map[string]uint64{}}}
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, gatewayv1beta1.Install, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		h.must(add(h.scheme))
	}
	var err error
	h.api, err = client.New(envtestkit.Config(t), client.Options{Scheme: h.scheme})
	h.must(err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "loop-"}}
	h.must(h.api.Create(t.Context(), namespace))
	h.name, h.namespace = namespace.Name, namespace
	t.Cleanup(func() {
		if h.stop != nil {
			h.stop()
		}
	})
	return h
}

func (h *hub) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// start makes a hub process: nothing but the API server remains of the last one.
func (h *hub) start() {
	h.Helper()
	if h.stop != nil {
		h.stop()
	}
	objects, err := cache.New(envtestkit.Config(h), cache.Options{Scheme: h.scheme})
	h.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	statuses := writer.New(writer.Options{Client: h.api})
	h.reports = &reports{Source: statuses.Source("gateway", gateway.ConditionTypes()...)}
	h.pools = &reports{Source: statuses.Source("edgepools", condition.EdgePoolReadyType)}
	h.records = NewRecords(h.api, h.name)
	h.edges.firstStream += 10
	h.loop = New(Options{Cache: objects, Merges: importhub.NewMerges(objects), Publisher: h.edges, Assigner: h.edges, Reporter: h.reports, Records: h.records, PoolReporter: h.pools})
	h.loop.started = time.Now()
	var ends sync.WaitGroup
	ends.Go(func() { _ = objects.Start(ctx) })
	ends.Go(func() { _ = statuses.Start(ctx) })
	h.stop = func() { cancel(); ends.Wait(); h.stop = nil }
	for _, f := range h.loop.kinds {
		_, err := objects.GetInformer(ctx, f.object)
		h.must(err)
	}
	if !objects.WaitForCacheSync(ctx) {
		h.Fatal("caches do not sync")
	}
}

// pass has the loop read everything, and waits until the EdgePools say what it reports.
func (h *hub) pass() {
	h.Helper()
	h.loop.inbox.Add(func(p *pending) { p.staleAll() })
	_, err := h.loop.pass(h.Context())
	h.must(err)
	for _, report := range h.pools.last {
		h.await("the status of EdgePool "+report.Ref.Name.Name, func() bool {
			pool := &v1alpha1.EdgePool{}
			err := h.api.Get(h.Context(), client.ObjectKey{Name: report.Ref.Name.Name}, pool)
			return apierrors.IsNotFound(err) || pool.Status.Edges == report.Pool.Edges && equality.Semantic.DeepEqual(pool.Status.Allocations, report.Pool.Allocations)
		})
	}
}

// apply creates or replaces YAML objects, in which NAME stands for the test's
// own, and waits until the caches have them.
func (h *hub) apply(text string) {
	h.Helper()
	for document := range bytes.SplitSeq([]byte(strings.ReplaceAll(text, "NAME", h.name)), []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		h.must(yaml.Unmarshal(document, &o.Object))
		h.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // the status writer is at work, too
			stored := &unstructured.Unstructured{}
			stored.SetGroupVersionKind(o.GroupVersionKind())
			if err := h.api.Get(h.Context(), client.ObjectKeyFromObject(o), stored); err != nil {
				return h.api.Create(h.Context(), o)
			}
			o.SetResourceVersion(stored.GetResourceVersion())
			return h.api.Update(h.Context(), o)
		}))
		if o.GetNamespace() != h.name {
			h.Cleanup(func() { _ = h.api.Delete(context.Background(), o) })
		}
		h.awaitCaches(o)
	}
}

// awaitCaches waits until the caches have what is stored of an object.
func (h *hub) awaitCaches(o client.Object) {
	h.Helper()
	typed, err := h.scheme.New(o.GetObjectKind().GroupVersionKind())
	h.must(err)
	cached, stored := typed.(client.Object), typed.DeepCopyObject().(client.Object)
	if err := h.api.Get(h.Context(), client.ObjectKeyFromObject(o), stored); err != nil {
		h.must(client.IgnoreNotFound(err))
		h.await("the caches forget "+o.GetName(), func() bool {
			return h.loop.options.Cache.Get(h.Context(), client.ObjectKeyFromObject(o), cached) != nil
		})
		return
	}
	h.await("the caches have "+o.GetName(), func() bool {
		err := h.loop.options.Cache.Get(h.Context(), client.ObjectKeyFromObject(o), cached)
		order, wrong := resourceversion.CompareResourceVersion(cached.GetResourceVersion(), stored.GetResourceVersion())
		return err == nil && wrong == nil && order >= 0
	})
}

func (h *hub) await(what string, condition func() bool) {
	h.Helper()
	err := wait.PollUntilContextTimeout(h.Context(), 2*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return condition(), nil })
	if err != nil {
		h.Fatal("never: ", what)
	}
}

func (h *hub) pool() *v1alpha1.EdgePool {
	h.Helper()
	pool := &v1alpha1.EdgePool{}
	h.must(h.api.Get(h.Context(), client.ObjectKey{Name: h.name}, pool))
	pool.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("EdgePool"))
	return pool
}

func (h *hub) storedRoute(name string) *gatewayv1.HTTPRoute {
	h.Helper()
	route := &gatewayv1.HTTPRoute{}
	h.must(h.api.Get(h.Context(), client.ObjectKey{Namespace: h.name, Name: name}, route))
	route.SetGroupVersionKind(schema.GroupVersion(gatewayv1.GroupVersion).WithKind("HTTPRoute"))
	return route
}

// adaptedRoute is a stored route as Build takes it.
func (h *hub) adaptedRoute(name string) *gateway.Route {
	h.Helper()
	return gateway.FromHTTPRoute(h.storedRoute(name))
}

func (h *hub) routeRef(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: h.name, Name: name}}
}

// conditionOf is a condition of the loop's last reports, like "True Accepted".
func (h *hub) conditionOf(kind condition.Kind, name, conditionType string) string {
	h.reports.mu.Lock()
	defer h.reports.mu.Unlock()
	for _, r := range h.reports.last {
		if r.Ref.Kind != kind || r.Ref.Name != (fleet.ObjectName{Namespace: h.name, Name: name}) {
			continue
		}
		all := slices.Clone(r.Conditions)
		for _, p := range r.Parents {
			all = append(all, p.Conditions...)
		}
		for _, c := range all {
			if c.Type == conditionType {
				return fmt.Sprintf("%s %s", c.Status, c.Reason)
			}
		}
	}
	return ""
}
