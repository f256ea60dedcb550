package agent

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// A cluster that leaves takes all that it exported from the hub, with the rights of its
// agent, and nothing of others.
func TestWithdrawAll(t *testing.T) {
	f := newFixture(t, "leaves")
	f.shops(f.namespace("leaves-shop"), 2)
	in := client.InNamespace(v1alpha1.MemberNamespace(f.name))
	count := func() int {
		var exports v1alpha1.MemberExportList
		var slices discoveryv1.EndpointSliceList
		f.Must(f.admin.List(t.Context(), &exports, in))
		f.Must(f.admin.List(t.Context(), &slices, in))
		return len(exports.Items) + len(slices.Items)
	}
	if got := count(); got != 4 {
		t.Fatalf("%d objects on the hub", got)
	}
	agent, err := client.New(f.hub.GetConfig(), client.Options{Scheme: f.scheme})
	f.Must(err)
	f.Must(Withdraw(t.Context(), agent, f.name))
	if got := count(); got != 0 {
		t.Errorf("%d objects are left on the hub", got)
	}
	f.Must(Withdraw(t.Context(), agent, f.name)) // again: nothing to do
}
