package endpoints

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/gateway/model"
)

// What the command line reads are these metrics, under the names of fleetload.
func TestMetricsOfADrain(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("web", "web")}, []model.ImportPolicy{rated("web", 10)})
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	f.Connected(edge)
	f.InitialVersions(edge, nil)
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}}
	m.Spec = v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}},
		Region: "us", EndpointCIDRs: []string{"10.1.0.0/16"}, Drain: &v1alpha1.MemberDrain{Percent: 60}}
	f.inbox.memberHandler().OnAdd(m, false)
	f.ObserveLoad(edge, []Load{{Assignment: "web", Interval: time.Second, Localities: []LocalityLoad{
		{SubZone: "us-west/shop/web", Issued: 10, Succeeded: 10, Open: 3}}}})
	f.run()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f.Loop)
	for metric, want := range map[string]string{
		fleetload.DrainedMetric:  `{cluster="us-west"} 0.6`,
		fleetload.OpenMetric:     `{cluster="us-west",import="shop/web",region="us"} 3`,
		fleetload.DemandMetric:   `{import="shop/web",region="us"} 10`,
		fleetload.ShareMetric:    `{cluster="us-west",import="shop/web",region="us"} 0.4`,
		fleetload.CapacityMetric: `{cluster="eu-west",import="shop/web"} 20`,
		fleetload.ReadyMetric:    `{cluster="eu-west",import="shop/web"} 2`,
	} {
		if got := gathered(t, registry, metric); !slices.Contains(got, metric+want) {
			t.Errorf("no %s%s in\n%s", metric, want, strings.Join(got, "\n"))
		}
	}
}

// gathered are the lines of one metric.
func gathered(t *testing.T, registry *prometheus.Registry, metric string) []string {
	t.Helper()
	families, err := registry.Gather()
	testkit.Must(t, err)
	var text bytes.Buffer
	for _, family := range families {
		if family.GetName() == metric {
			_, err := expfmt.MetricFamilyToText(&text, family)
			testkit.Must(t, err)
		}
	}
	return strings.Split(text.String(), "\n")
}
