package model

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

// Equal compares every field of an Assignment: a new field fails here until it is compared. A field that is not compared
// would change neither the Envoy cluster nor the load assignment.
func TestEqualComparesEveryField(t *testing.T) {
	backends := []WeightedBackend{{Port: 80, Weight: 1}}
	full := Assignment{Key: "a", Route: fleet.RouteRef{Kind: "HTTPRoute"}, Backends: backends, Fallback: backends,
		Protocol: HTTP1, Timeout: time.Second, Policy: &ClusterPolicy{}}
	same := full
	same.Backends, same.Policy = slices.Clone(backends), &ClusterPolicy{}
	if !full.Equal(same) {
		t.Error("equal assignments differ")
	}
	for i := range reflect.TypeFor[Assignment]().NumField() {
		other := full
		field := reflect.ValueOf(&other).Elem().Field(i)
		if field.IsZero() {
			t.Fatalf("set %s in this test", reflect.TypeFor[Assignment]().Field(i).Name)
		}
		if field.SetZero(); full.Equal(other) || other.Equal(full) {
			t.Errorf("%s is not compared", reflect.TypeFor[Assignment]().Field(i).Name)
		}
	}
}
