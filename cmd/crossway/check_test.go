package main

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/check"
	"crossway.dev/crossway/pkg/registration"
)

// Check tells all that is wrong with a real hub's objects, and ends with exit code 1
// until nothing is.
func TestCheck(t *testing.T) {
	_, c := newFleet(t)
	c.uninstalls(hubRelease)
	c.want(hubInit)
	c.refused(1, "check", "findings are wrong")
	out, _ := c.crossway("check")
	for _, line := range []string{
		"wrong Deployment crossway-system/crossway-hub 0 of 2 replicas are ready",
		"wrong edge CA (Secret crossway-edge-ca) does not exist",
		"wrong Lease crossway-system/crossway-hub no replica leads: nothing",
		"ok CRDs of the Gateway API 10 of 10 are there",
		"ok CRDs of the Multi-Cluster Services API 2 of 2 are there",
		"ok CRDs of Crossway 6 of 6 are there",
		"-> crossway token create <member> --region <region>",
	} {
		if !strings.Contains(oneLine(out), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	c.mend()
	out = c.want("check", "ok", "MemberCluster us-west", "ok", "EdgePool us")
	if !strings.Contains(oneLine(out), "warning replicas of the hub could not be read: no pod of the hub") {
		t.Errorf("nothing about replicas that nobody could read:\n%s", out)
	}
	if strings.Contains(out, "wrong") {
		t.Errorf("something is wrong:\n%s", out)
	}
	var result checkResult
	testkit.Must(t, json.Unmarshal([]byte(c.want("check -o json")), &result))
	if check.Worst(result.Findings) == check.Wrong || len(result.Findings) < 8 {
		t.Errorf("printed %+v", result)
	}
}

// mend makes of a hub that was just installed one that works.
func (c *cluster) mend() {
	t := c.t
	t.Helper()
	var d appsv1.Deployment
	testkit.Must(t, c.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: hubRelease}, &d))
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}
	testkit.Must(t, c.Status().Update(t.Context(), &d))
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	server, err := registration.NewServerCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, []string{"hub"})
	testkit.Must(t, err)
	replicas, err := registration.NewHubReplicaCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader})
	testkit.Must(t, err)
	gossip, err := registration.NextMemberCA(registration.CA{}, time.Now(), rand.Reader)
	testkit.Must(t, err)
	c.create(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: check.LeaseName}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: ptr.To("crossway-hub-a"), LeaseDurationSeconds: ptr.To(int32(15)), RenewTime: ptr.To(metav1.NewMicroTime(time.Now().Add(time.Hour)))}})
	for name, data := range map[string]map[string][]byte{
		registration.EdgeCASecret:   {"tls.crt": ca.Certificate, "tls.key": ca.Key},
		registration.XDSSecret:      {"tls.crt": server.Certificate, "tls.key": server.Key, "ca.crt": ca.Certificate},
		registration.ReplicaSecret:  {"tls.crt": replicas.Certificate, "tls.key": replicas.Key, "ca.crt": ca.Certificate},
		registration.MemberCASecret: gossip.CA.Data(),
	} {
		c.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: name}, Data: data})
	}
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us", Accepted: true, EndpointCIDRs: []string{"10.1.0.0/16"}})
	c.hubSays("us-west", func(s *v1alpha1.MemberClusterStatus) {
		joins(uid)(s)
		s.Conditions[2].Status = metav1.ConditionTrue
	})
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
	c.create(pool)
	pool.Status.Edges, pool.Status.Conditions = 2, []metav1.Condition{conditionOf("Ready", metav1.ConditionTrue, "connected")}
	testkit.Must(t, c.Status().Update(t.Context(), pool))
}

// An edge's credential is revoked by its ID, which the refusal without one lists.
func TestRevokeEdges(t *testing.T) {
	c := newHub(t)
	c.refused(1, "revoke --edge us --credential abcdefghij", `EdgePool "us" does not exist; see kubectl get edgepools`)
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
	c.create(pool)
	connected := func(edges int32) {
		testkit.Must(t, c.Get(t.Context(), client.ObjectKeyFromObject(pool), pool))
		pool.Status.Credentials = []v1alpha1.EdgeCredential{{ID: "abcdefghij", CA: "ca", Edges: edges, ExpirationTime: metav1.Now()}}
		testkit.Must(t, c.Status().Update(t.Context(), pool))
	}
	c.refused(2, "revoke --edge us", "edges of pool us are connected with: none")
	connected(2)
	c.refused(2, "revoke --edge us", "name one with --credential; edges of pool us are connected with:\n  abcdefghij  2 connected, until ")
	c.refused(1, "revoke --edge us --credential ABC", "spec.revokedCredentials")
	c.refused(3, "revoke --edge us --credential abcdefghij --wait 1s", "last seen: 2 edges connected with revoked credentials")
	connected(0)
	c.want("revoke --edge us --credential abcdefghij", "no edge of pool us is connected with abcdefghij, and none will be")
	testkit.Must(t, c.Get(t.Context(), client.ObjectKeyFromObject(pool), pool))
	if list(pool.Spec.RevokedCredentials) != "abcdefghij" {
		t.Errorf("revoked %v", pool.Spec.RevokedCredentials)
	}
}
