package hub

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// Only updates that change a MemberCluster's conditions pass.
func TestRefusedEndpointsChanged(t *testing.T) {
	export := func(generation int64, admitted metav1.ConditionStatus) *v1alpha1.MemberExport {
		e := &v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
		e.Status.Conditions = []metav1.Condition{{Type: condition.EndpointsAdmitted, Status: admitted}}
		return e
	}
	for _, update := range []struct {
		before, after *v1alpha1.MemberExport
		passes        bool
	}{
		{export(1, "True"), export(2, "True"), false},
		{&v1alpha1.MemberExport{}, export(1, "True"), false},
		{export(1, "True"), export(1, "False"), true},
		{export(1, "False"), export(2, "True"), true},
		{export(1, "False"), export(2, "False"), false},
	} {
		if got := refusedEndpointsChanged.Update(event.UpdateEvent{ObjectOld: update.before, ObjectNew: update.after}); got != update.passes {
			t.Errorf("from %v to %v: %v", update.before.Status, update.after.Status, got)
		}
	}
}
