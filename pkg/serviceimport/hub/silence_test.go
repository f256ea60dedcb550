package hub

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
)

// reachable writes condition Reachable of a member, as it became at a time.
func (f *fixture) reachable(name string, status metav1.ConditionStatus, reason string, at, heard time.Time) {
	f.Helper()
	last := metav1.NewTime(heard)
	f.Must(apply.Status(f.Context(), f.client, "reachable-test", &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.MemberClusterStatus{
		LastHeardTime: &last, Conditions: []metav1.Condition{{Type: "Reachable", Status: status, Reason: reason, Message: "said", LastTransitionTime: metav1.NewTime(at)}}}}))
}

// A member that blinks costs no write of its exports. One that is silent for some minutes has each export say so once, whatever
// is found out about it meanwhile; nothing of it is taken away, and the exports of others stay as they are.
func TestExportsOfASilentMember(t *testing.T) {
	f := newFixture(t)
	f.member("s-west", "10.1.0.0/16")
	f.member("s-east", "10.2.0.0/16")
	f.export("member-s-west", "silence", 1, nil)
	f.export("member-s-east", "silence", 2, nil)
	f.reconcile("silence")
	version := func(namespace string) string { return f.memberExport(namespace, "silence").ResourceVersion }
	west, east := version("member-s-west"), version("member-s-east")
	began := f.now.Truncate(time.Second)
	heard := began.Add(-10 * time.Second)

	f.reachable("s-west", metav1.ConditionFalse, "Gossip", began, heard)
	f.reconcile("silence")
	result, err := f.merger.ReconcileStatus(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "silence"}})
	f.Must(err)
	if result.RequeueAfter <= 0 || result.RequeueAfter > v1alpha1.SilenceOfExports {
		t.Errorf("a member that fell silent is looked at again after %s", result.RequeueAfter)
	}
	if got := version("member-s-west"); got != west {
		t.Error("a member that blinked has its export written")
	}

	f.now = began.Add(v1alpha1.SilenceOfExports)
	f.reconcile("silence")
	message := f.message("member-s-west", "silence", "Ready")
	if !strings.Contains(message, `"s-west" is silent since `+heard.UTC().Format(time.RFC3339)) || !strings.Contains(message, "offered to 1 other cluster") {
		t.Errorf("Ready of a silent member's export: %s", message)
	}
	f.wantImport("silence", "http 80 from s-east s-west")
	f.wantConditions("member-s-west", "silence", "Conflict=False NoConflicts", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	west = version("member-s-west")
	f.reachable("s-west", metav1.ConditionFalse, "DataPlane", began, heard)
	f.now = f.now.Add(10 * time.Minute)
	f.reconcile("silence")
	if got := version("member-s-west"); got != west {
		t.Error("what is found out about a silent member has its exports written")
	}

	f.reachable("s-west", metav1.ConditionTrue, "Gossip", f.now, f.now)
	f.reconcile("silence")
	if got := f.message("member-s-west", "silence", "Ready"); got != "offered to 1 other cluster" {
		t.Errorf("Ready of an export whose member is back: %s", got)
	}
	if got := version("member-s-east"); got != east {
		t.Error("another member's export was written")
	}
}

// A member that is silent for minutes again and again has no export written.
func TestExportsOfAMemberThatBlinks(t *testing.T) {
	f := newFixture(t)
	f.member("b-west", "10.3.0.0/16")
	f.export("member-b-west", "blinks", 1, nil)
	f.reconcile("blinks")
	before := f.memberExport("member-b-west", "blinks").ResourceVersion
	for range 3 {
		f.reachable("b-west", metav1.ConditionFalse, "Gossip", f.now, f.now)
		f.now = f.now.Add(4 * time.Minute)
		f.reconcile("blinks")
		f.reachable("b-west", metav1.ConditionTrue, "Gossip", f.now, f.now)
		f.now = f.now.Add(10 * time.Second)
		f.reconcile("blinks")
	}
	if after := f.memberExport("member-b-west", "blinks").ResourceVersion; after != before {
		t.Error("the export of a member that blinks was written")
	}
}
