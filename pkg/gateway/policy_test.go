package gateway

import (
	"reflect"
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
)

// fill sets every field of a value, recursively, to a value that depends on n.
func fill(t *testing.T, v reflect.Value, n int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Float64:
		v.SetFloat(float64(n))
	case reflect.String:
		v.SetString(string(rune('a' + n)))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), n)
	default:
		t.Fatalf("fill has no case for kind %s", v.Kind())
	}
}

// Backends with different settings never share an Envoy cluster: grouping compares
// every field of ClusterPolicy.
func TestBackendsWithDifferentPoliciesShareNoCluster(t *testing.T) {
	backend := func(name string, policy *model.ClusterPolicy) resolvedBackend {
		r := resolvedBackend{protocol: model.HTTP1, policy: policy}
		r.backend.Backend.Name.Name = name
		return r
	}
	groups := func(x, y *model.ClusterPolicy) int {
		plan := &backendPlan{weight: 1}
		return len(addToGroup(addToGroup(nil, plan, backend("a", x)), plan, backend("b", y)))
	}
	for i := range reflect.TypeFor[model.ClusterPolicy]().NumField() {
		x, y, equal := &model.ClusterPolicy{}, &model.ClusterPolicy{}, &model.ClusterPolicy{}
		fill(t, reflect.ValueOf(x).Elem(), 1)
		fill(t, reflect.ValueOf(equal).Elem(), 1)
		fill(t, reflect.ValueOf(y).Elem(), 1)
		fill(t, reflect.ValueOf(y).Elem().Field(i), 2)
		if n := groups(x, equal); n != 1 {
			t.Errorf("equal policies: %d groups", n)
		}
		if n := groups(x, y); n != 2 {
			t.Errorf("other %s: %d groups", reflect.TypeFor[model.ClusterPolicy]().Field(i).Name, n)
		}
	}
	if n := groups(&model.ClusterPolicy{HealthCheck: &model.HealthCheck{}}, nil); n != 1 {
		t.Errorf("a health check beside none: %d groups", n)
	}
}

// A route that starts to use a policy is not patched, because the policy's
// ancestors, which are reported after all routes are attached, may change.
func TestRouteWithOtherPoliciesIsNotPatched(t *testing.T) {
	f := newFixture(t)
	f.add(baseObjects + "---\n" + `kind: BackendPolicy
metadata: {name: store, namespace: shop}
spec: {targetRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}], capacity: {maxRatePerEndpoint: 5}}
---
kind: HTTPRoute
metadata: {name: store, namespace: shop}
spec:
  parentRefs: [{name: shared, namespace: infra}]
  rules: [{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store, port: 8080}]}]
`)
	last := Build(f.in)
	using := last.Memo.results[0]
	if len(using.policies) != 1 || using.policies[0].String() != "BackendPolicy shop/store" {
		t.Fatalf("policies %v", using.policies)
	}
	other := *using
	if other.policies = nil; !using.patchable(using) || using.patchable(&other) {
		t.Error("a route's policies do not decide whether it is patched")
	}
}
