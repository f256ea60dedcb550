package reconciler

import (
	"context"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// lastReports keeps the last reports.
type lastReports struct {
	noReporter
	reports []condition.Report
	calls   int
}

func (l *lastReports) Report(all []condition.Report) { l.reports, l.calls = all, l.calls+1 }

func (l *lastReports) programmed() string {
	for _, r := range l.reports {
		if r.Ref.Kind == condition.Gateway {
			return string(r.Conditions[1].Status) + " " + r.Conditions[1].Message
		}
	}
	return "no report"
}

// Edges that connect and answer change reports alone: no second Build runs, for
// a new Gateway neither.
func TestProgressRunsNoBuild(t *testing.T) {
	e := &edges{published: map[string]envoy.Resources{}, generation: map[string]uint64{}, connected: 1}
	reporter := &lastReports{}
	r := New(Options{Publisher: e, Assigner: e, Reporter: reporter, PoolReporter: noReporter{}})
	in := inputOf(3)
	r.watchKinds([]watchedKind{{rolledOut: true, list: func(_ context.Context, _ client.Reader, into *gateway.Input) error {
		*into = in
		return nil
	}}})
	pass := func(wantBuilds uint64, wantCalls int, want string) {
		t.Helper()
		if _, err := r.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		var m dto.Metric
		if err := r.metrics.builds.Write(&m); err != nil {
			t.Fatal(err)
		}
		if got := m.GetHistogram().GetSampleCount(); got != wantBuilds || reporter.calls != wantCalls || reporter.programmed() != want {
			t.Errorf("%d builds, %d times reported, %q; want %d, %d, %q", got, reporter.calls, reporter.programmed(), wantBuilds, wantCalls, want)
		}
	}
	pass(1, 1, "False 0 of 2 connected edges serve this generation") // one Build, though its Gateway is new
	r.Progressed()
	pass(1, 2, "True all 2 connected edges serve this generation")
	pass(1, 2, "True all 2 connected edges serve this generation") // nothing new: nothing reported
	e.connected = 2
	r.Progressed()
	pass(1, 3, "True all 4 connected edges serve this generation")
	e.connected = 0
	pass(1, 4, `False no edge of EdgePools "eu", "us" is connected; start Envoys there (chart edge) and look at EdgePool status`)
	r.inbox.Add(func(p *pending) { p.stale[0] = true })
	pass(2, 5, `False no edge of EdgePools "eu", "us" is connected; start Envoys there (chart edge) and look at EdgePool status`)
}
