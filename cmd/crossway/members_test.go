package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleetload"
)

// What the hub's replicas do not say is absent, and the rest is there.
func TestMembersWithoutLiveNumbers(t *testing.T) {
	c := newHub(t)
	c.want("members", "The fleet has no members: crossway token create <member> --region <region>")
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us", Accepted: true})
	c.hubSays("us-west", func(s *v1alpha1.MemberClusterStatus) {
		s.Exports, s.Endpoints = 3, 12
		s.Conditions = []metav1.Condition{conditionOf("Ready", metav1.ConditionTrue, "yes")}
		s.Credential = &v1alpha1.MemberCredential{ID: "abcdefghij", ClusterUID: uid, Kind: v1alpha1.CredentialCertificate,
			IssuedTime: metav1.Now(), ExpirationTime: &metav1.Time{Time: time.Now().Add(20*time.Hour + time.Minute)}}
	})
	out := c.want("members us-west", "NAME", "us-west")
	if got, want := strings.Fields(strings.Split(out, "\n")[1]), "us-west us True Test 3 12 20h - - - - -"; len(got) < 5 || strings.Join(slices.Delete(got, 4, 5), " ") != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if !strings.Contains(c.said, `No live numbers: no pod of the hub is ready in namespace "crossway-system"`) {
		t.Errorf("said %q", c.said)
	}
	c.refused(1, "members us-east", `MemberCluster "us-east" does not exist`)
	c.want("members -o jsonpath={.members[0].endpoints}", "12")
}

func TestMembersTable(t *testing.T) {
	var out strings.Builder
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	testkit.Must(t, membersResult{Members: []memberResult{
		{Name: "us-west", Region: "us", Ready: true, Reason: "Working", Since: "2026-03-01T09:00:00Z", Exports: 2, Endpoints: 6, CertificateEnd: "2026-03-02T08:00:00Z", Load: &fleetload.Member{
			Shares:   []fleetload.RegionShare{{Region: "eu", Demand: 100, Part: 0.25}, {Region: "us", Demand: 300, Part: 1}, {Region: "ap"}},
			Requests: 325, Capacity: 600, Room: 275, Drained: 0.1}},
		{Name: "us-east", Region: "us", Reason: "NotAccepted", CertificateEnd: "2026-03-01T08:00:00Z", Load: &fleetload.Member{}},
	}}.text(&out, now))
	want := `NAME      REGION   READY   REASON        SINCE   EXPORTS   ENDPOINTS   CERTIFICATE   SHARE             REQ/S   CAPACITY   ROOM   DRAINED
us-west   us       True    Working       3h   2         6           20h           eu:25%,us:100%    325     600        275    10%
us-east   us       False   NotAccepted   -   0         0           ended         -                 0       -          -      -
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}

// squeeze makes each run of spaces one.
func squeeze(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return strings.Join(lines, "\n")
}
