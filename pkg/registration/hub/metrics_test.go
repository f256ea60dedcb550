package hub

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// The metrics say of accepted members and of pools what their status says. One that is
// not accepted has none, so that no alert is about it.
func TestMetrics(t *testing.T) {
	scheme := runtime.NewScheme()
	testkit.Must(t, v1alpha1.AddToScheme(scheme))
	end := metav1.Unix(1_800_000_000, 0)
	member := func(name string, accepted bool) *v1alpha1.MemberCluster {
		return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.MemberClusterSpec{Accepted: accepted, Region: "us", Exports: v1alpha1.MemberExportRules{MaxExports: 20}},
			Status: v1alpha1.MemberClusterStatus{Exports: 12, Endpoints: 340, Conditions: []metav1.Condition{
				{Type: "Joined", Status: metav1.ConditionTrue}, {Type: "Reachable", Status: metav1.ConditionUnknown}},
				Credential: &v1alpha1.MemberCredential{ExpirationTime: &end}}}
	}
	cache := fake.NewClientBuilder().WithScheme(scheme).WithObjects(member("us-west", true), member("us-east", false),
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}, Spec: v1alpha1.EdgePoolSpec{Region: "us"}}).Build()
	testkit.Must(t, testutil.CollectAndCompare(NewMetrics(cache, func(fleet.ClusterName) bool { return true }), strings.NewReader(`
# HELP crossway_credential_expiry_timestamp_seconds When a credential or certificate ends, as a Unix time, by kind (member, edge, ca, server) and name.
# TYPE crossway_credential_expiry_timestamp_seconds gauge
crossway_credential_expiry_timestamp_seconds{kind="member",name="us-west"} 1.8e+09
# HELP crossway_edgepool_info 1 for each EdgePool.
# TYPE crossway_edgepool_info gauge
crossway_edgepool_info{pool="us",region="us"} 1
# HELP crossway_member_condition 1 if a condition of an accepted MemberCluster is True, 0 if it is False or Unknown.
# TYPE crossway_member_condition gauge
crossway_member_condition{member="us-west",type="Joined"} 1
crossway_member_condition{member="us-west",type="Reachable"} 0
# HELP crossway_member_endpoints Ready endpoints of a member that count, as in its status.
# TYPE crossway_member_endpoints gauge
crossway_member_endpoints{member="us-west"} 340
# HELP crossway_member_endpoints_limit How many endpoints of a member count.
# TYPE crossway_member_endpoints_limit gauge
crossway_member_endpoints_limit{member="us-west"} 20000
# HELP crossway_member_exports Exports of a member, as in its status.
# TYPE crossway_member_exports gauge
crossway_member_exports{member="us-west"} 12
# HELP crossway_member_exports_limit How many exports a member may have.
# TYPE crossway_member_exports_limit gauge
crossway_member_exports_limit{member="us-west"} 20
# HELP crossway_member_gossip_heard 1 if gossip hears the agent of an accepted MemberCluster.
# TYPE crossway_member_gossip_heard gauge
crossway_member_gossip_heard{member="us-west"} 1
# HELP crossway_member_info 1 for each MemberCluster that is accepted.
# TYPE crossway_member_info gauge
crossway_member_info{member="us-west",region="us"} 1
`)))
}
