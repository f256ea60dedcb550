package reconciler

import (
	"reflect"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/gateway/model"
)

// No field of an assignment changes unseen: neither the Envoy cluster nor the load assignments would.
func TestSameAssignmentSeesEveryField(t *testing.T) {
	full := func() model.Assignment {
		backends := func() []model.WeightedBackend { return []model.WeightedBackend{{Port: 80, Weight: 1}} }
		return model.Assignment{Key: "shop/web", Route: shop("web"), Backends: backends(), Fallback: backends(),
			Protocol: model.HTTP1, Timeout: time.Second, HealthCheck: &model.HealthCheck{Path: "/healthz"}}
	}
	if !sameAssignment(full(), full()) {
		t.Error("equal assignments differ")
	}
	for i := range reflect.TypeFor[model.Assignment]().NumField() {
		other := full()
		field := reflect.ValueOf(&other).Elem().Field(i)
		if field.IsZero() {
			t.Fatalf("this test does not know field %d", i)
		}
		field.SetZero()
		if sameAssignment(full(), other) || sameAssignment(other, full()) {
			t.Errorf("%s is not compared", reflect.TypeFor[model.Assignment]().Field(i).Name)
		}
	}
}
