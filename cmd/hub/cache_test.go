package main

import (
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Of Secrets the hub caches certificates of all namespaces, or of those that it
// may read: the listed ones, and its own for what edges are served with.
func TestCachedSecrets(t *testing.T) {
	for _, c := range []struct{ listed, want []string }{{nil, nil}, {[]string{"infra", "shop"}, []string{"crossway-system", "infra", "shop"}}} {
		for kind, options := range cacheOptions("crossway-system", c.listed, nil).ByObject {
			if _, ok := kind.(*corev1.Secret); !ok {
				continue
			}
			if got := slices.Sorted(maps.Keys(options.Namespaces)); !slices.Equal(got, c.want) {
				t.Errorf("listed %v: Secrets of %v are cached", c.listed, got)
			}
			if options.Field == nil || options.Field.String() != "type=kubernetes.io/tls" {
				t.Errorf("listed %v: Secrets with %v are cached", c.listed, options.Field)
			}
		}
	}
}
