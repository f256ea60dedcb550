package writer

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// fixture is a namespace on the API server, a Writer with a fake clock, and a Source
// of Build's conditions.
type fixture struct {
	testkit.T
	api       client.WithWatch
	namespace string
	clock     *clocktesting.FakePassiveClock
	writer    *Writer
	source    *Source
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, v1alpha1.AddToScheme} {
		testkit.Must(t, add(scheme))
	}
	api, err := client.NewWithWatch(envtestkit.Config(t), client.Options{Scheme: scheme})
	testkit.Must(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "writer-"}}
	testkit.Must(t, api.Create(t.Context(), namespace))
	f := fixture{T: testkit.T{TB: t}, api: api, namespace: namespace.Name, clock: clocktesting.NewFakePassiveClock(noon)}
	f.writer = New(Options{Client: api, Clock: f.clock})
	f.source = f.writer.Source("gateway", "Accepted", "Programmed", "ResolvedRefs", "PartiallyInvalid")
	return f
}

// route creates a route with one parentRef to each Gateway named.
func (f fixture) route(name string, gateways ...string) *gatewayv1.HTTPRoute {
	f.Helper()
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: name}}
	for _, g := range gateways {
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, gatewayv1.ParentReference{Name: gatewayv1.ObjectName(g)})
	}
	f.Must(f.api.Create(f.Context(), route))
	return route
}

func (f fixture) ref(kind condition.Kind, name string, generation int64) condition.Ref {
	return condition.Ref{Kind: kind, Name: fleet.ObjectName{Namespace: f.namespace, Name: name}, Generation: generation}
}

// accepted is a report that one parent accepts the route, with this message.
func (f fixture) accepted(name string, generation int64, gateway, message string) condition.Report {
	return condition.Report{
		Ref: f.ref(condition.HTTPRoute, name, generation),
		Parents: []condition.ParentReport{{
			ParentRef:  gatewayv1.ParentReference{Name: gatewayv1.ObjectName(gateway)},
			Conditions: []condition.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", Message: message}},
		}},
	}
}

func (f fixture) write(reports ...condition.Report) {
	f.Helper()
	f.source.Report(reports)
	for _, report := range reports {
		f.Must(f.writer.write(f.Context(), report.Ref.Object()))
	}
}

func (f fixture) stored(name string) *gatewayv1.HTTPRoute {
	f.Helper()
	route := &gatewayv1.HTTPRoute{}
	f.Must(f.api.Get(f.Context(), client.ObjectKey{Namespace: f.namespace, Name: name}, route))
	return route
}

// describe is the parents' status in lines.
func describe(route *gatewayv1.HTTPRoute) string {
	var lines []string
	for _, p := range route.Status.Parents {
		for _, c := range p.Conditions {
			lines = append(lines, fmt.Sprintf("%s by %s: %s=%s %q generation %d since %s", p.ParentRef.Name, p.ControllerName,
				c.Type, c.Status, c.Message, c.ObservedGeneration, c.LastTransitionTime.UTC().Format("15:04")))
		}
	}
	return strings.Join(lines, "\n")
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if want = strings.TrimSpace(strings.ReplaceAll(want, "\t", "")); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// foreign adds another controller's parent status, and a condition of a third
// party to ours.
func (f fixture) foreign(name string) {
	f.Helper()
	route := f.stored(name)
	other := metav1.Condition{Type: "Accepted", Status: "True", Reason: "Accepted", Message: "other's", LastTransitionTime: metav1.NewTime(noon)}
	route.Status.Parents = append([]gatewayv1.RouteParentStatus{
		{ParentRef: gatewayv1.ParentReference{Name: "theirs"}, ControllerName: "example.com/other", Conditions: []metav1.Condition{other}},
	}, route.Status.Parents...)
	for i := range route.Status.Parents {
		if p := &route.Status.Parents[i]; p.ControllerName == v1alpha1.GatewayController {
			audit := other
			audit.Type, audit.Message = "Audited", "third party's"
			p.Conditions = append(p.Conditions, audit)
		}
	}
	f.Must(f.api.Status().Update(f.Context(), route))
}

// Conditions of other controllers on a route are kept. The lastTransitionTime
// changes only with the status, not with the message or the generation.
func TestOthersAreKept(t *testing.T) {
	f := newFixture(t)
	f.route("web", "ours", "theirs")
	f.write(f.accepted("web", 1, "ours", "first"))
	f.foreign("web")

	f.clock.SetTime(noon.Add(time.Hour))
	f.write(f.accepted("web", 1, "ours", "second"))
	expect(t, describe(f.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=True "second" generation 1 since 12:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)

	refused := f.accepted("web", 1, "ours", "third")
	refused.Parents[0].Conditions[0].Status = metav1.ConditionFalse
	f.write(refused)
	expect(t, describe(f.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=False "third" generation 1 since 13:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)

	// The route no longer has our Gateway as parent: our conditions are removed.
	f.write(condition.Report{Ref: f.ref(condition.HTTPRoute, "web", 1)})
	expect(t, describe(f.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)
}

// A condition that its source no longer reports is removed.
func TestUnreportedConditionIsRemoved(t *testing.T) {
	f := newFixture(t)
	f.route("web", "ours")
	report := f.accepted("web", 1, "ours", "")
	report.Parents[0].Conditions = append(report.Parents[0].Conditions,
		condition.Condition{Type: "PartiallyInvalid", Status: metav1.ConditionTrue, Reason: "UnsupportedValue", Message: "rule 2"})
	f.write(report)
	expect(t, describe(f.stored("web")), `
		ours by crossway.dev/gateway: Accepted=True "" generation 1 since 12:00
		ours by crossway.dev/gateway: PartiallyInvalid=True "rule 2" generation 1 since 12:00`)
	f.write(f.accepted("web", 1, "ours", ""))
	expect(t, describe(f.stored("web")), `ours by crossway.dev/gateway: Accepted=True "" generation 1 since 12:00`)
}

// An equal report writes nothing, also in a Writer that has just started. Recheck
// queues the object again.
func TestEqualReportIsNotWritten(t *testing.T) {
	f := newFixture(t)
	f.route("web", "ours")
	f.write(f.accepted("web", 1, "ours", "same"))
	before := f.stored("web").ResourceVersion

	f.writer = New(Options{Client: f.api, Clock: clocktesting.NewFakePassiveClock(noon.Add(time.Hour))})
	f.source = f.writer.Source("gateway", "Accepted")
	f.write(f.accepted("web", 1, "ours", "same"))
	if after := f.stored("web").ResourceVersion; after != before {
		t.Errorf("resourceVersion went from %s to %s though nothing changed", before, after)
	}

	f.writer.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[fleet.ObjectRef]())
	f.source.Report([]condition.Report{f.accepted("web", 1, "ours", "same")})
	if n := f.writer.queue.Len(); n != 0 {
		t.Errorf("an equal report queued %d objects", n)
	}
	f.source.Recheck(condition.HTTPRoute, fleet.ObjectName{Namespace: f.namespace, Name: "web"})
	if n := f.writer.queue.Len(); n != 1 {
		t.Errorf("Recheck queued %d objects, want 1", n)
	}
}

// A replica that is behind does not overwrite the status of a newer generation. An
// object that was deleted and created again does not get its predecessor's status.
func TestOlderGenerationIsSkipped(t *testing.T) {
	f := newFixture(t)
	f.route("web", "ours")
	route := f.stored("web")
	route.Spec.Hostnames = []gatewayv1.Hostname{"a.example.com"}
	f.Must(f.api.Update(t.Context(), route))
	f.write(f.accepted("web", 2, "ours", "of 2"))
	f.write(f.accepted("web", 1, "ours", "of 1"))
	expect(t, describe(f.stored("web")), `ours by crossway.dev/gateway: Accepted=True "of 2" generation 2 since 12:00`)
	f.write(f.accepted("web", 7, "ours", "of 7"))
	expect(t, describe(f.stored("web")), `ours by crossway.dev/gateway: Accepted=True "of 2" generation 2 since 12:00`)
}

// The cache is behind another controller's write: the update conflicts, and the
// retry reads the stored object from the API server.
func TestConflict(t *testing.T) {
	f := newFixture(t)
	stale := f.route("web", "ours", "theirs").DeepCopy()
	f.foreign("web")
	behind := interceptor.NewClient(f.api, interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
			stale.DeepCopyInto(o.(*gatewayv1.HTTPRoute))
			return nil
		},
	})
	f.writer = New(Options{Client: behind, Live: f.api, Clock: f.clock})
	f.source = f.writer.Source("gateway", "Accepted")
	f.write(f.accepted("web", 1, "ours", "mine"))
	expect(t, describe(f.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=True "mine" generation 1 since 12:00`)
	if n := testutil.ToFloat64(f.writer.metrics.conflicts.WithLabelValues("HTTPRoute")); n != 1 {
		t.Errorf("%v conflicts, want 1", n)
	}
}

// A deleted object is forgotten, and so is one without a report.
func TestObjectsAreForgotten(t *testing.T) {
	f := newFixture(t)
	f.write(f.accepted("nowhere", 1, "ours", ""))
	if n := len(f.writer.wanted); n != 0 {
		t.Errorf("%d objects after the only one was deleted", n)
	}
	f.source.Report([]condition.Report{f.accepted("a", 1, "ours", ""), f.accepted("b", 1, "ours", "")})
	f.source.Report([]condition.Report{f.accepted("b", 1, "ours", "")})
	if n := len(f.writer.wanted); n != 1 {
		t.Errorf("%d objects, want only b", n)
	}
}

// A replica that does not lead queues nothing. Once it leads, and each time that it
// leads again, it writes the latest report.
func TestLeaderOnly(t *testing.T) {
	f := newFixture(t)
	f.route("web", "ours")
	term := func(want string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- f.writer.Start(ctx) }()
		err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
			return strings.Contains(describe(f.stored("web")), want), nil
		})
		cancel()
		f.Must(<-stopped)
		f.Must(err)
	}
	report := func(message string) {
		t.Helper()
		f.source.Report([]condition.Report{f.accepted("web", 1, "ours", message)})
		if f.writer.queue != nil {
			t.Fatal("a replica that does not lead is about to write")
		}
	}
	report("old")
	report("last")
	term(`ours by crossway.dev/gateway: Accepted=True "last" generation 1 since 12:00`)
	report("not written")
	report("second term")
	term(`ours by crossway.dev/gateway: Accepted=True "second term" generation 1`)
}
