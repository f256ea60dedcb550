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
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// fixture is a namespace on the API server, a Writer on a hand-moved clock, and
// the source of Build's conditions.
type fixture struct {
	*testing.T
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
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	api, err := client.NewWithWatch(envtestkit.Config(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "writer-"}}
	if err := api.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	r := fixture{T: t, api: api, namespace: namespace.Name, clock: clocktesting.NewFakePassiveClock(noon)}
	r.writer = New(Options{Client: api, Clock: r.clock})
	r.source = r.writer.Source("gateway", "Accepted", "Programmed", "ResolvedRefs", "PartiallyInvalid")
	return r
}

func (r fixture) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// route creates a route with one parentRef to each Gateway named.
func (r fixture) route(name string, gateways ...string) *gatewayv1.HTTPRoute {
	r.Helper()
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}}
	for _, g := range gateways {
		route.Spec.ParentRefs = append(route.Spec.ParentRefs, gatewayv1.ParentReference{Name: gatewayv1.ObjectName(g)})
	}
	r.must(r.api.Create(r.Context(), route))
	return route
}

func (r fixture) ref(kind condition.Kind, name string, generation int64) condition.Ref {
	return condition.Ref{Kind: kind, Name: fleet.ObjectName{Namespace: r.namespace, Name: name}, Generation: generation}
}

// accepted is a report that one parent accepts the route, with this message.
func (r fixture) accepted(name string, generation int64, gateway, message string) condition.Report {
	return condition.Report{
		Ref: r.ref(condition.HTTPRoute, name, generation),
		Parents: []condition.ParentReport{{
			ParentRef:  condition.ParentRef{Name: gateway},
			Conditions: []condition.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", Message: message}},
		}},
	}
}

func (r fixture) write(reports ...condition.Report) {
	r.Helper()
	r.source.Report(reports)
	for _, report := range reports {
		r.must(r.writer.write(r.Context(), report.Ref.Object()))
	}
}

func (r fixture) stored(name string) *gatewayv1.HTTPRoute {
	r.Helper()
	route := &gatewayv1.HTTPRoute{}
	r.must(r.api.Get(r.Context(), client.ObjectKey{Namespace: r.namespace, Name: name}, route))
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
func (r fixture) foreign(name string) {
	r.Helper()
	route := r.stored(name)
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
	r.must(r.api.Status().Update(r.Context(), route))
}

// A route with two owners: each keeps its own, and lastTransitionTime moves
// only with the status, not with the message or the generation.
func TestOthersAreKept(t *testing.T) {
	r := newFixture(t)
	r.route("web", "ours", "theirs")
	r.write(r.accepted("web", 1, "ours", "first"))
	r.foreign("web")

	r.clock.SetTime(noon.Add(time.Hour))
	r.write(r.accepted("web", 1, "ours", "second"))
	expect(t, describe(r.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=True "second" generation 1 since 12:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)

	refused := r.accepted("web", 1, "ours", "third")
	refused.Parents[0].Conditions[0].Status = metav1.ConditionFalse
	r.write(refused)
	expect(t, describe(r.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=False "third" generation 1 since 13:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)

	// The route leaves our Gateway: nothing of ours is left to say there.
	r.write(condition.Report{Ref: r.ref(condition.HTTPRoute, "web", 1)})
	expect(t, describe(r.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Audited=True "third party's" generation 0 since 12:00`)
}

// A condition type that its source no longer reports goes away.
func TestTypesComeAndGo(t *testing.T) {
	r := newFixture(t)
	r.route("web", "ours")
	report := r.accepted("web", 1, "ours", "")
	report.Parents[0].Conditions = append(report.Parents[0].Conditions,
		condition.Condition{Type: "PartiallyInvalid", Status: metav1.ConditionTrue, Reason: "UnsupportedValue", Message: "rule 2"})
	r.write(report)
	expect(t, describe(r.stored("web")), `
		ours by crossway.dev/gateway: Accepted=True "" generation 1 since 12:00
		ours by crossway.dev/gateway: PartiallyInvalid=True "rule 2" generation 1 since 12:00`)
	r.write(r.accepted("web", 1, "ours", ""))
	expect(t, describe(r.stored("web")), `ours by crossway.dev/gateway: Accepted=True "" generation 1 since 12:00`)
}

// Saying the same again writes nothing, also for a Writer that has just
// started; a status that somebody took away is written again on Recheck.
func TestEqualIsNotWritten(t *testing.T) {
	r := newFixture(t)
	r.route("web", "ours")
	r.write(r.accepted("web", 1, "ours", "same"))
	before := r.stored("web").ResourceVersion

	r.writer = New(Options{Client: r.api, Clock: clocktesting.NewFakePassiveClock(noon.Add(time.Hour))})
	r.source = r.writer.Source("gateway", "Accepted")
	r.write(r.accepted("web", 1, "ours", "same"))
	if after := r.stored("web").ResourceVersion; after != before {
		t.Errorf("resourceVersion went from %s to %s though nothing changed", before, after)
	}

	r.writer.running = true
	r.source.Report([]condition.Report{r.accepted("web", 1, "ours", "same")})
	if n := r.writer.queue.Len(); n != 0 {
		t.Errorf("an equal report queued %d objects", n)
	}
	r.source.Recheck(condition.HTTPRoute, fleet.ObjectName{Namespace: r.namespace, Name: "web"})
	if n := r.writer.queue.Len(); n != 1 {
		t.Errorf("Recheck queued %d objects, want 1", n)
	}
}

// A replica that is behind does not overwrite the verdict on a newer spec, and
// an object made again under its name does not get its predecessor's.
func TestOlderGenerationIsSkipped(t *testing.T) {
	r := newFixture(t)
	r.route("web", "ours")
	route := r.stored("web")
	route.Spec.Hostnames = []gatewayv1.Hostname{"a.example.com"}
	r.must(r.api.Update(t.Context(), route))
	r.write(r.accepted("web", 2, "ours", "of 2"))
	r.write(r.accepted("web", 1, "ours", "of 1"))
	expect(t, describe(r.stored("web")), `ours by crossway.dev/gateway: Accepted=True "of 2" generation 2 since 12:00`)
	r.write(r.accepted("web", 7, "ours", "of 7"))
	expect(t, describe(r.stored("web")), `ours by crossway.dev/gateway: Accepted=True "of 2" generation 2 since 12:00`)
}

// The cache is behind another controller's write: the update is refused, and
// the second try starts from what is really stored.
func TestConflict(t *testing.T) {
	r := newFixture(t)
	stale := r.route("web", "ours", "theirs").DeepCopy()
	r.foreign("web")
	behind := interceptor.NewClient(r.api, interceptor.Funcs{
		Get: func(_ context.Context, _ client.WithWatch, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
			stale.DeepCopyInto(o.(*gatewayv1.HTTPRoute))
			return nil
		},
	})
	r.writer = New(Options{Client: behind, Live: r.api, Clock: r.clock})
	r.source = r.writer.Source("gateway", "Accepted")
	r.write(r.accepted("web", 1, "ours", "mine"))
	expect(t, describe(r.stored("web")), `
		theirs by example.com/other: Accepted=True "other's" generation 0 since 12:00
		ours by crossway.dev/gateway: Accepted=True "mine" generation 1 since 12:00`)
	if n := testutil.ToFloat64(r.writer.metrics.conflicts.WithLabelValues("HTTPRoute")); n != 1 {
		t.Errorf("%v conflicts, want 1", n)
	}
}

// An object that is gone is forgotten, and so is one that is not reported.
func TestForgotten(t *testing.T) {
	r := newFixture(t)
	r.write(r.accepted("nowhere", 1, "ours", ""))
	if n := len(r.writer.wanted); n != 0 {
		t.Errorf("%d objects remembered after one was gone", n)
	}
	r.source.Report([]condition.Report{r.accepted("a", 1, "ours", ""), r.accepted("b", 1, "ours", "")})
	r.source.Report([]condition.Report{r.accepted("b", 1, "ours", "")})
	if n := len(r.writer.wanted); n != 1 {
		t.Errorf("%d objects remembered, want only b", n)
	}
}

// Before it leads, a replica queues nothing; once it leads it writes the last
// that was wanted, at once.
func TestLeaderOnly(t *testing.T) {
	r := newFixture(t)
	r.route("web", "ours")
	r.source.Report([]condition.Report{r.accepted("web", 1, "ours", "old")})
	r.source.Report([]condition.Report{r.accepted("web", 1, "ours", "last")})
	if !r.writer.NeedLeaderElection() || r.writer.queue.Len() != 0 {
		t.Fatal("a replica that does not lead is about to write")
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- r.writer.Start(ctx) }()
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		return describe(r.stored("web")) != "", nil
	})
	cancel()
	r.must(<-stopped)
	r.must(err)
	expect(t, describe(r.stored("web")), `ours by crossway.dev/gateway: Accepted=True "last" generation 1 since 12:00`)
}
