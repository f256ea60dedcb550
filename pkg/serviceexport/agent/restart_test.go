package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// An agent that stops after any of its writes, whose answer it may not have got, and
// is replaced by another one: together they write what one agent writes, no more and
// no less, and the hub has all of it.
func TestStopAfterEachWrite(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	f := newFixture(t, "stop")
	random := rand.New(rand.NewPCG(1, 1))
	for n, total := 1, 1; n <= total; n++ {
		for _, lost := range []bool{false, true} {
			f.writes.stopAfter(0, false)
			ns := f.namespace(fmt.Sprintf("stop-%d-%t", n, lost))
			f.writes.reset()
			f.writes.stopAfter(n, lost)
			f.push(ns, random, f.firstExports)
			f.push(ns, random, f.laterExports)
			if total = len(f.writes.list()); total != 11 {
				t.Fatalf("after a stop at write %d (answer lost: %t) there were %d writes: %v", n, lost, total, f.writes.list())
			}
			f.wantExports(ns, "s0 http-web: 2 slices, 3 endpoints", "s2 http: 1 slices, 2 endpoints")
			f.start()
			f.writes.reset()
			f.push(ns, random, func(string) {})
			f.wantWrites("after the next restart", f.writes.list())
		}
	}
}

// push changes the member and reconciles all keys in any order. If the agent stops
// meanwhile, another one starts and does the same.
func (f *fixture) push(namespace string, random *rand.Rand, change func(namespace string)) {
	f.Helper()
	change(namespace)
	if f.tryAll(namespace, random) != nil {
		f.writes.stopAfter(0, false)
		f.start()
		f.Must(f.tryAll(namespace, random))
	}
}

// tryAll reconciles all keys twice, since a slice waits for its MemberExport.
func (f *fixture) tryAll(namespace string, random *rand.Rand) error {
	var errs []error
	for range 2 {
		var keys []func() error
		for _, service := range []string{"s0", "s1", "s2"} {
			keys = append(keys, func() error { return f.reconcileExport(namespace, service) })
			for _, slice := range []string{"-1", "-2"} {
				keys = append(keys, func() error { return f.reconcileSlice(hubName(namespace, service, service+slice)) })
			}
		}
		random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for _, key := range keys {
			errs = append(errs, key())
		}
	}
	return errors.Join(errs...)
}

// firstExports are five writes.
func (f *fixture) firstExports(namespace string) {
	f.Helper()
	f.service(namespace, "s0")
	f.slice(namespace, "s0", "s0-2", "10.1.0.3", "10.1.0.4")
	f.service(namespace, "s1")
}

// laterExports are six writes: an endpoint less, another name of a port, an export
// that is withdrawn and a new one.
func (f *fixture) laterExports(namespace string) {
	f.Helper()
	f.changeSlice(namespace, "s0-1", func(s *discoveryv1.EndpointSlice) { s.Endpoints = s.Endpoints[:1] })
	f.changeService(namespace, "s0", func(s *corev1.Service) { s.Spec.Ports[0].Name = "http-web" })
	f.changeSlice(namespace, "s0-2", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = ptr.To("http-web") })
	f.lose(namespace, "s1")
	f.service(namespace, "s2")
}

// wantExports checks what the hub has of a namespace of the member.
func (f *fixture) wantExports(namespace string, want ...string) {
	f.Helper()
	var exports v1alpha1.MemberExportList
	var pushed discoveryv1.EndpointSliceList
	in := client.InNamespace(v1alpha1.MemberNamespace(f.name))
	f.Must(f.admin.List(f.Context(), &exports, in))
	f.Must(f.admin.List(f.Context(), &pushed, in, client.MatchingLabels{v1alpha1.LabelServiceNamespace: namespace}))
	var got []string
	for _, e := range exports.Items {
		if e.Spec.Service.Namespace != namespace {
			continue
		}
		slices, endpoints := 0, 0
		for _, s := range pushed.Items {
			if s.Labels[v1alpha1.LabelServiceName] == e.Spec.Service.Name {
				slices, endpoints = slices+1, endpoints+len(s.Endpoints)
			}
		}
		got = append(got, fmt.Sprintf("%s %s: %d slices, %d endpoints", e.Spec.Service.Name, e.Spec.Ports[0].Name, slices, endpoints))
	}
	if !slices.Equal(got, want) {
		f.Errorf("of %s the hub has %q, want %q", namespace, got, want)
	}
}
