package registration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// What `kubectl get memberclusters` says of a cluster: READY and REASON are condition
// Ready, whose message is that of the condition that matters most.
func TestReadySumsUp(t *testing.T) {
	now := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	heard := func(ago time.Duration) *time.Time { at := now.Add(-ago); return &at }
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	well := func() MemberFacts {
		return MemberFacts{Member: *joined(idA, uidA), Now: now,
			LastRenewal: heard(time.Second), Admission: Admission{CIDRs: cidrs}, Exports: 12}
	}
	for _, c := range []struct {
		what string
		but  func(f *MemberFacts)
		want string
	}{
		{"all is well", func(*MemberFacts) {}, "True Lease"},
		{"it is not accepted, although its Lease is fresh", func(f *MemberFacts) { f.Member.Spec.Accepted = false }, "False NotAccepted"},
		{"somebody has its namespace", func(f *MemberFacts) { f.Namespace = NamespaceTaken }, "False NamespaceTaken"},
		{"no agent has come", func(f *MemberFacts) { f.LastRenewal = nil }, "False NeverHeard"},
		{"it is silent", func(f *MemberFacts) { f.LastRenewal = heard(40 * time.Second) }, "False Lease"},
		{"none of its endpoints can count", func(f *MemberFacts) { f.Admission.CIDRs = nil }, "False NoEndpointCIDRs"},
		{"the same, and it exports nothing", func(f *MemberFacts) { f.Admission.CIDRs, f.Exports = nil, 0 }, "True NoEndpointCIDRs"},
		{"the hub takes no more of it", func(f *MemberFacts) { f.Full, f.Refused = []string{"500 exports"}, []string{"shop/web"} }, "True QuotaReached"},
		{"some endpoints are refused", func(f *MemberFacts) { f.Refused = []string{"shop/web"} }, "True EndpointsRefused"},
		{"exports from a namespace that is not allowed", func(f *MemberFacts) { f.NotAllowed = []string{"infra"} }, "True NamespacesNotAllowed"},
		{"it waits for a word about lost exports", func(f *MemberFacts) {
			f.Lease = map[string]string{v1alpha1.AnnotationWithdrawalPaused: "11-of-12-20260101T080000Z"}
		}, "True ExportsMissing"},
		{"the same, and it is silent", func(f *MemberFacts) {
			f.Lease = map[string]string{v1alpha1.AnnotationWithdrawalPaused: "11-of-12-20260101T080000Z"}
			f.LastRenewal = heard(time.Minute)
		}, "False Lease"},
	} {
		f := well()
		c.but(&f)
		var ready condition.Condition
		messages := map[string]bool{}
		for _, got := range Conditions(f) {
			if got.Type == condition.MemberReadyType {
				ready = got
			} else {
				messages[got.Reason+got.Message] = true
			}
		}
		if got := fmt.Sprint(ready.Status, " ", ready.Reason); got != c.want || !messages[ready.Reason+ready.Message] {
			t.Errorf("%s: Ready=%s %q, want %s with the message of another condition", c.what, got, ready.Message, c.want)
		}
	}
}

// A cluster that the hub refuses is not called silent, which would send its admin to
// the agent's log and network.
func TestRefusedIsNotSilent(t *testing.T) {
	renewed := time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	for _, c := range Conditions(MemberFacts{LastRenewal: &renewed, Now: renewed.Add(time.Hour)}) {
		if c.Type == condition.MemberReachableType && (c.Status != metav1.ConditionUnknown || c.Reason != "NotAccepted") {
			t.Errorf("Reachable=%s %s %q", c.Status, c.Reason, c.Message)
		}
	}
}

// A quota is full where as much is used as it allows; what nobody has counted is not.
func TestFull(t *testing.T) {
	objects := Objects("us-west", Limits{Exports: 2, EndpointsPerService: 100, Endpoints: 100})
	used := func(exports, slices string) corev1.ResourceList {
		list := corev1.ResourceList{CountOfLeases: resource.MustParse("1")}
		for name, text := range map[corev1.ResourceName]string{CountOfExports: exports, CountOfSlices: slices} {
			if text != "" {
				list[name] = resource.MustParse(text)
			}
		}
		return list
	}
	for _, c := range []struct {
		exports, slices string
		want            []string
	}{
		{"1", "5", nil}, {"", "", nil}, {"2", "5", []string{"2 exports"}}, {"3", "6", []string{"2 exports", "6 EndpointSlices"}},
	} {
		objects.Quota.Status.Used = used(c.exports, c.slices)
		if got := Full(objects.Quota); !slices.Equal(got, c.want) {
			t.Errorf("%s exports and %s slices: %q, want %q", c.exports, c.slices, got, c.want)
		}
	}
}
