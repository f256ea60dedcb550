package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/testkit"
)

// informers is a controller-runtime cache of both kinds, as an agent has it.
func (f *fixture) informers(ctx context.Context, cluster string) cache.Cache {
	f.TB.Helper()
	c, err := cache.New(f.config(cluster), cache.Options{Scheme: scheme()})
	f.Must(err)
	for _, o := range []client.Object{&mcsv1beta1.ServiceImport{}, &discoveryv1.EndpointSlice{}} {
		_, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		f.Must(err)
	}
	go func() { _ = c.Start(ctx) }()
	return c
}

// seen is what a cache has: each import, and each address of each slice.
func (f *fixture) seen(c cache.Cache) string {
	var imports mcsv1beta1.ServiceImportList
	var endpoints discoveryv1.EndpointSliceList
	for _, list := range []client.ObjectList{&imports, &endpoints} {
		if err := c.List(f.TB.Context(), list); err != nil {
			return err.Error()
		}
	}
	var out []string
	for _, i := range imports.Items {
		out = append(out, "import "+i.Namespace+"/"+i.Name)
	}
	for _, s := range endpoints.Items {
		for _, e := range s.Endpoints {
			out = append(out, fmt.Sprintf("%s/%s %s from %s", s.Namespace, s.Labels[mcsv1beta1.LabelServiceName], e.Addresses[0], s.Labels[mcsv1beta1.LabelSourceCluster]))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// An agent's caches have what it may see, and follow each change.
func TestInformersFollow(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	f.member("b", "shop", "team-*")
	f.export("shop", "web", "a", "b")
	f.push("a", "shop", "web", "10.97.0.1", "10.98.0.1") // the second is not a's to announce
	f.export("team-1", "db", "b")
	f.push("b", "team-1", "db", "10.98.0.9")
	f.pass()
	a, b := f.informers(t.Context(), "a"), f.informers(t.Context(), "b")
	expect := func(wantA, wantB string) {
		t.Helper()
		testkit.EventuallySeen(t, "what a and b see", func() (bool, any) {
			gotA, gotB := f.seen(a), f.seen(b)
			return gotA == wantA && gotB == wantB, fmt.Sprintf("a: %s\nb: %s", gotA, gotB)
		})
	}
	web := "import shop/web, shop/web 10.97.0.1 from a"
	expect(web, "import shop/web, import team-1/db, shop/web 10.97.0.1 from a, team-1/db 10.98.0.9 from b")
	f.push("b", "shop", "web", "10.98.0.2")
	f.pass()
	web += ", shop/web 10.98.0.2 from b"
	expect(web, "import shop/web, import team-1/db, shop/web 10.97.0.1 from a, shop/web 10.98.0.2 from b, team-1/db 10.98.0.9 from b")
	f.withdraw("team-1", "db")
	f.pass()
	expect(web, web)
	f.unpush("a", "shop", "web")
	f.pass()
	expect("import shop/web, shop/web 10.98.0.2 from b", "import shop/web, shop/web 10.98.0.2 from b")
}

// An agent whose hub restarts, or that gets to another replica, has afterwards what is there: the versions that it knows
// are not taken for the new server's.
func TestInformersFollowToAnotherReplica(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	for _, name := range []string{"one", "two", "three"} {
		f.export("shop", name, "a")
	}
	f.push("a", "shop", "one", "10.97.0.1")
	f.pass()
	seen := f.informers(t.Context(), "a")
	expect := func(want string) {
		t.Helper()
		testkit.EventuallySeen(t, "what a sees", func() (bool, any) {
			got := f.seen(seen)
			return got == want, got
		})
	}
	expect("import shop/one, import shop/three, import shop/two, shop/one 10.97.0.1 from a")
	for range 2 { // each replica has seen other changes
		f.stop()
		f.Server = New(Config{})
		f.member("a", "shop")
		f.export("shop", "four", "a")
		f.push("a", "shop", "four", "10.97.0.4")
		f.pass()
		f.export("shop", "one", "a")
		f.pass()
		f.serve()
		expect("import shop/four, import shop/one, shop/four 10.97.0.4 from a")
		f.withdraw("shop", "one")
		f.pass()
		expect("import shop/four, shop/four 10.97.0.4 from a")
		f.export("shop", "one", "a")
		f.pass()
	}
}
