package hub

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

var (
	memberDesc          = prometheus.NewDesc("crossway_member_info", "1 for each MemberCluster that is accepted.", []string{"member", "region"}, nil)
	memberConditionDesc = prometheus.NewDesc("crossway_member_condition",
		"1 if a condition of an accepted MemberCluster is True, 0 if it is False or Unknown.", []string{"member", "type"}, nil)
	heardDesc         = prometheus.NewDesc("crossway_member_gossip_heard", "1 if gossip hears the agent of an accepted MemberCluster.", []string{"member"}, nil)
	exportsDesc       = prometheus.NewDesc("crossway_member_exports", "Exports of a member, as in its status.", []string{"member"}, nil)
	maxExportsDesc    = prometheus.NewDesc("crossway_member_exports_limit", "How many exports a member may have.", []string{"member"}, nil)
	endpointsDesc     = prometheus.NewDesc("crossway_member_endpoints", "Ready endpoints of a member that count, as in its status.", []string{"member"}, nil)
	maxEndpointsDesc  = prometheus.NewDesc("crossway_member_endpoints_limit", "How many endpoints of a member count.", []string{"member"}, nil)
	poolDesc          = prometheus.NewDesc("crossway_edgepool_info", "1 for each EdgePool.", []string{"pool", "region"}, nil)
	poolConditionDesc = prometheus.NewDesc("crossway_edgepool_condition",
		"1 if a condition of an EdgePool is True, 0 if it is False or Unknown.", []string{"pool", "type"}, nil)
)

var expiryDesc = expiryDescOf("member")

// expiryDescOf describes the metric of when credentials of one kind end, by their names.
func expiryDescOf(kind string) *prometheus.Desc {
	return prometheus.NewDesc("crossway_credential_expiry_timestamp_seconds",
		"When a credential or certificate ends, as a Unix time, by kind (member, edge, ca, server) and name.",
		[]string{"name"}, prometheus.Labels{"kind": kind})
}

// scrapeTimeout is how long a scrape waits for caches that have not synced.
const scrapeTimeout = time.Second

// Metrics are the conditions and numbers of MemberClusters and EdgePools, and the ends of
// members' credentials, from the caches: every replica has them, also one that does not lead.
type Metrics struct {
	reader client.Reader
	heard  func(fleet.ClusterName) bool
}

// NewMetrics makes Metrics of what a cache has. heard says whether gossip hears a member's
// agent; nil: agents do not gossip.
func NewMetrics(cache client.Reader, heard func(fleet.ClusterName) bool) Metrics {
	return Metrics{cache, heard}
}

// Describe implements prometheus.Collector.
func (Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{memberDesc, memberConditionDesc, heardDesc, exportsDesc, maxExportsDesc, endpointsDesc, maxEndpointsDesc, poolDesc, poolConditionDesc, expiryDesc} {
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
	var members v1alpha1.MemberClusterList
	if m.reader.List(ctx, &members, client.UnsafeDisableDeepCopy) == nil { // else there is nothing to tell yet
		for i := range members.Items {
			if registration.Accepted(&members.Items[i]) {
				m.collectMember(&members.Items[i], gauge)
			}
		}
	}
	var pools v1alpha1.EdgePoolList
	if m.reader.List(ctx, &pools, client.UnsafeDisableDeepCopy) == nil {
		for i := range pools.Items {
			collectPool(&pools.Items[i], gauge)
		}
	}
}

type gauge = func(d *prometheus.Desc, value float64, labels ...string)

func (m Metrics) collectMember(member *v1alpha1.MemberCluster, gauge gauge) {
	limits := registration.LimitsOf(member)
	gauge(memberDesc, 1, member.Name, member.Spec.Region)
	collectConditions(memberConditionDesc, member.Name, member.Status.Conditions, gauge)
	if m.heard != nil {
		gauge(heardDesc, program.OneIf(m.heard(fleet.ClusterName(member.Name))), member.Name)
	}
	gauge(exportsDesc, float64(member.Status.Exports), member.Name)
	gauge(maxExportsDesc, float64(limits.Exports), member.Name)
	gauge(endpointsDesc, float64(member.Status.Endpoints), member.Name)
	gauge(maxEndpointsDesc, float64(limits.Endpoints), member.Name)
	if c := member.Status.Credential; c != nil && c.ExpirationTime != nil {
		gauge(expiryDesc, float64(c.ExpirationTime.Unix()), member.Name)
	}
}

func collectPool(p *v1alpha1.EdgePool, gauge gauge) {
	gauge(poolDesc, 1, p.Name, p.Spec.Region)
	collectConditions(poolConditionDesc, p.Name, p.Status.Conditions, gauge)
}

func collectConditions(d *prometheus.Desc, name string, all []metav1.Condition, gauge gauge) {
	for _, c := range all {
		gauge(d, program.OneIf(c.Status == metav1.ConditionTrue), name, c.Type)
	}
}
