package main

import (
	"slices"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/program"
)

// The hub's own table of kinds says what the API server's discovery says.
func TestKinds(t *testing.T) {
	config, scheme := envtestkit.Config(t), newScheme()
	kinds := slices.Concat(servingKinds(), writingKinds(), otherKinds())
	ours, err := program.Mapper(scheme, kinds)(config, nil)
	testkit.Must(t, err)
	httpClient, err := rest.HTTPClientFor(config)
	testkit.Must(t, err)
	discovered, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	testkit.Must(t, err)
	for _, k := range kinds {
		gvk, err := apiutil.GVKForObject(k.Object, scheme)
		testkit.Must(t, err)
		want, err := discovered.RESTMapping(gvk.GroupKind(), gvk.Version)
		testkit.Must(t, err)
		got, err := ours.RESTMapping(gvk.GroupKind(), gvk.Version)
		testkit.Must(t, err)
		if got.Resource != want.Resource || got.Scope.Name() != want.Scope.Name() {
			t.Errorf("%s: %v %s, want %v %s", gvk.Kind, got.Resource, got.Scope.Name(), want.Resource, want.Scope.Name())
		}
	}
}
