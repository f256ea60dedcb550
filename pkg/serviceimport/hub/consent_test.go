package hub

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/api/v1alpha1"
)

// An export counts only from a namespace that the member may export, and its
// condition shows the line that allows it.
func TestNamespaceNotAllowed(t *testing.T) {
	f := newFixture(t)
	f.member("c-west", "10.1.0.0/16")
	f.member("c-east", "10.2.0.0/16")
	f.export("member-c-west", "consent", 1, func(s *v1alpha1.MemberExportSpec) { s.Ports[0].Name = "evil" })
	f.export("member-c-east", "consent", 2, nil)
	allow := func(namespaces ...v1alpha1.NamespacePattern) {
		var m v1alpha1.MemberCluster
		f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: "c-west"}, &m))
		m.Spec.Exports.Namespaces = namespaces
		f.Must(f.client.Update(t.Context(), &m))
		f.reconcile("consent")
	}
	allow()
	f.wantImport("consent", "http 80 from c-east")
	f.wantConditions("member-c-west", "consent", "Ready=False NamespaceNotAllowed")
	if m := f.message("member-c-west", "consent", "Ready"); !strings.Contains(m, "spec.exports.namespaces: [shop]") {
		t.Error(m)
	}
	allow("s*")
	if got := f.fleetService("consent"); !strings.Contains(got, "c-west") {
		t.Errorf("allowed, but the import is %s", got)
	}
}

// A namespace that somebody else made under the name of a member's is no
// member's: an export in it does not count until the namespace has the label.
func TestNamespaceOfSomebodyElse(t *testing.T) {
	f := newFixture(t)
	theirs := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-l-west"}}
	f.ensure(theirs)
	f.member("l-west", "10.1.0.0/16")
	f.export("member-l-west", "taken", 1, nil)
	f.reconcile("taken")
	f.wantImport("taken", "none")
	f.wantConditions("member-l-west", "taken", "Ready=False NotAccepted")
	theirs.Labels = map[string]string{v1alpha1.LabelMember: "l-west"}
	f.Must(f.client.Update(t.Context(), theirs))
	f.reconcile("taken")
	f.wantImport("taken", "http 80 from l-west")
}

// Endpoints beyond a limit of the member are counted in the export's condition.
func TestTooManyEndpoints(t *testing.T) {
	f := newFixture(t)
	f.member("t-west", "10.1.0.0/16")
	var m v1alpha1.MemberCluster
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: "t-west"}, &m))
	m.Spec.Exports.MaxEndpointsPerService = 2
	f.Must(f.client.Update(t.Context(), &m))
	f.export("member-t-west", "many", 1, nil)
	f.slice("member-t-west", "many", "many-1", "IPv4", "10.1.0.1", "10.1.0.2", "10.1.0.3")
	f.reconcile("many")
	f.wantConditions("member-t-west", "many", "Conflict=False NoConflicts", "EndpointsAdmitted=False TooManyEndpoints", "Ready=True Exported")
	if m := f.message("member-t-west", "many", "EndpointsAdmitted"); !strings.Contains(m, "1 endpoints get no traffic") {
		t.Error(m)
	}
}
