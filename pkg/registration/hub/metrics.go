package hub

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

var (
	memberDesc          = prometheus.NewDesc("crossway_member_info", "1 for each MemberCluster that is accepted.", []string{"member", "region"}, nil)
	memberConditionDesc = prometheus.NewDesc("crossway_member_condition",
		"1 if a condition of an accepted MemberCluster is True, 0 if it is False or Unknown.", []string{"member", "type"}, nil)
	exportsDesc       = prometheus.NewDesc("crossway_member_exports", "Exports of a member, as in its status.", []string{"member"}, nil)
	maxExportsDesc    = prometheus.NewDesc("crossway_member_exports_limit", "How many exports a member may have.", []string{"member"}, nil)
	endpointsDesc     = prometheus.NewDesc("crossway_member_endpoints", "Ready endpoints of a member that count, as in its status.", []string{"member"}, nil)
	maxEndpointsDesc  = prometheus.NewDesc("crossway_member_endpoints_limit", "How many endpoints of a member count.", []string{"member"}, nil)
	poolDesc          = prometheus.NewDesc("crossway_edgepool_info", "1 for each EdgePool.", []string{"pool", "region"}, nil)
	poolConditionDesc = prometheus.NewDesc("crossway_edgepool_condition",
		"1 if a condition of an EdgePool is True, 0 if it is False or Unknown.", []string{"pool", "type"}, nil)
)

// scrapeTimeout is how long a scrape waits for caches that have not synced.
const scrapeTimeout = time.Second

// Metrics are the conditions and numbers of MemberClusters and EdgePools, from the
// caches: every replica has them, also one that does not lead.
type Metrics struct{ reader client.Reader }

// NewMetrics makes Metrics of what a cache has.
func NewMetrics(cache client.Reader) Metrics { return Metrics{cache} }

// Describe implements prometheus.Collector.
func (Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{memberDesc, memberConditionDesc, exportsDesc, maxExportsDesc, endpointsDesc, maxEndpointsDesc, poolDesc, poolConditionDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m Metrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	conditions := func(d *prometheus.Desc, name string, all []metav1.Condition) {
		for _, c := range all {
			value := 0.0
			if c.Status == metav1.ConditionTrue {
				value = 1
			}
			gauge(d, value, name, c.Type)
		}
	}
	var members v1alpha1.MemberClusterList
	if m.reader.List(ctx, &members, client.UnsafeDisableDeepCopy) == nil { // else there is nothing to tell yet
		for i := range members.Items {
			member := &members.Items[i]
			if !registration.Accepted(member) {
				continue
			}
			limits := registration.LimitsOf(member)
			gauge(memberDesc, 1, member.Name, member.Spec.Region)
			conditions(memberConditionDesc, member.Name, member.Status.Conditions)
			gauge(exportsDesc, float64(member.Status.Exports), member.Name)
			gauge(maxExportsDesc, float64(limits.Exports), member.Name)
			gauge(endpointsDesc, float64(member.Status.Endpoints), member.Name)
			gauge(maxEndpointsDesc, float64(limits.Endpoints), member.Name)
		}
	}
	var pools v1alpha1.EdgePoolList
	if m.reader.List(ctx, &pools, client.UnsafeDisableDeepCopy) == nil {
		for i := range pools.Items {
			gauge(poolDesc, 1, pools.Items[i].Name, pools.Items[i].Spec.Region)
			conditions(poolConditionDesc, pools.Items[i].Name, pools.Items[i].Status.Conditions)
		}
	}
}
