package gateway

import (
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
)

// Backends with different settings never share an Envoy cluster. One with a health
// check and one without may: endpoints of the latter are not checked.
func TestBackendsWithDifferentPoliciesShareNoCluster(t *testing.T) {
	backend := func(name string, policy *model.ClusterPolicy) resolvedBackend {
		r := resolvedBackend{protocol: model.HTTP1, policy: policy}
		r.backend.Backend.Name.Name = name
		return r
	}
	checked := func(path string) *model.ClusterPolicy {
		return &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Path: path}}
	}
	for _, test := range []struct {
		x, y   *model.ClusterPolicy
		groups int
	}{{checked("/a"), checked("/a"), 1}, {checked("/a"), checked("/b"), 2}, {checked("/a"), nil, 1}, {nil, nil, 1}} {
		plan := &backendPlan{weight: 1}
		if got := addToGroup(addToGroup(nil, plan, backend("a", test.x)), plan, backend("b", test.y)); len(got) != test.groups {
			t.Errorf("%+v and %+v: %d groups, want %d", test.x.Check(), test.y.Check(), len(got), test.groups)
		}
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
