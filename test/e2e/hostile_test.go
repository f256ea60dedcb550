package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

const (
	hostileServices = 10
	hostileSlices   = 20 // of each service: as many endpoints as count, 2000
	// excessSlices are those beyond, as many as the quota of a member takes.
	excessSlices = 1150
	// maxExcess is what an edge may take for what exceeds the limits, in KiB.
	maxExcess = 64 << 10
)

// hostile is a member that has no agent: whoever has its credential writes what the hub takes.
type hostile struct {
	testkit.T
	hub client.Client
}

func (h *hostile) slice(i int) *discoveryv1.EndpointSlice {
	service := "f0" // of what is too much
	if i < hostileServices*hostileSlices {
		service = fmt.Sprint("f", i%hostileServices)
	}
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}}}
	s.Namespace, s.Name = v1alpha1.MemberNamespace("hostile"), fmt.Sprintf("slice-%04d", i)
	s.Labels = map[string]string{v1alpha1.LabelServiceNamespace: "flood", v1alpha1.LabelServiceName: service}
	for address := netip.AddrFrom4([4]byte{10, byte(64 + i>>8), byte(i), 1}); len(s.Endpoints) < 100; address = address.Next() {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	return s
}

// each calls f for slices, a few at a time, until ctx ends.
func (h *hostile) each(ctx context.Context, from, to int, f func(context.Context, *discoveryv1.EndpointSlice) error) {
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := from + w; i < to && ctx.Err() == nil; i += 4 {
				if err := f(ctx, h.slice(i)); err != nil && ctx.Err() == nil {
					h.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

func (h *hostile) create(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	return h.hub.Create(ctx, s)
}

// flip makes all endpoints of a slice unready, or ready again.
func (h *hostile) flip(ctx context.Context, s *discoveryv1.EndpointSlice) error {
	ready := time.Now().UnixNano()%2 == 0
	for i := range s.Endpoints {
		s.Endpoints[i].Conditions.Ready = &ready
	}
	return h.hub.Update(ctx, s)
}

// grown is by how much the edge that grew most has grown, in KiB.
func grown(t *testing.T, before map[int]int) (most int) {
	t.Helper()
	for pid, now := range memoryOfEnvoys(t) {
		if was := before[pid]; was > 0 {
			most = max(most, now-was)
		}
	}
	return most
}

// A member writes as much as the hub takes of it: ten services of 2000 endpoints each, what
// exceeds these limits up to its quota, and then changes as fast as it can. What exceeds the
// limits costs an edge less than 64 MB, and its neighbour loses no request. The figures are
// in docs/security.md.
func TestHostileMemberHurtsNobody(t *testing.T) {
	h := &hostile{T: testkit.T{TB: t}}
	scheme := runtime.NewScheme()
	h.Must(clientgoscheme.AddToScheme(scheme))
	h.Must(v1alpha1.AddToScheme(scheme))
	var err error
	h.hub, err = client.New(story.Lab.Hub.REST, client.Options{Scheme: scheme})
	h.Must(err)
	neighbour := story.Client("us", "store.example.com", 50)
	usual := load.Run(t.Context(), neighbour, 300)
	before := memoryOfEnvoys(t)
	recorder := load.Start(t.Context(), neighbour)
	h.join()
	h.each(t.Context(), 0, hostileServices*hostileSlices, h.create)
	h.settled("what counts", func() bool { return grown(t, before) > 1<<10 })
	allowed := grown(t, before)
	h.each(t.Context(), hostileServices*hostileSlices, hostileServices*hostileSlices+excessSlices, h.create)
	time.Sleep(5 * time.Second) // nothing tells that nothing more comes
	excess := grown(t, before) - allowed
	written := recorder.Stop()
	recorder = load.Start(t.Context(), neighbour)
	flood, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	for flood.Err() == nil {
		h.each(flood, 0, hostileServices*hostileSlices+excessSlices, h.flip)
	}
	flooded := recorder.Stop()
	t.Logf("an edge takes %d KiB for what counts (20,000 endpoints), and %d KiB for 115,000 beyond", allowed, excess)
	t.Logf("the neighbour's p50, p99: %s; while all is written %s; while all changes %s", percentiles(usual), percentiles(written), percentiles(flooded))
	if excess > maxExcess {
		t.Errorf("what exceeds the limits takes %d KiB of an edge", excess)
	}
	lossless(t, written)
	lossless(t, flooded)
}

// join makes the member, its exports and their routes.
func (h *hostile) join() {
	h.Helper()
	t := h.TB.(*testing.T)
	apply(t, story.Lab.Hub, `
apiVersion: v1
kind: Namespace
metadata: {name: flood, labels: {shared-gateway: "true"}}
---
apiVersion: crossway.dev/v1alpha1
kind: MemberCluster
metadata: {name: hostile}
spec: {accepted: true, region: us, endpointCIDRs: [10.64.0.0/12], exports: {namespaces: [flood]}}
`)
	testkit.Joined(t, h.hub, "hostile")
	says(t, object{"hub", "membercluster", "", "hostile"}, "Joined=True")
	var routes []string
	for i := range hostileServices {
		name := fmt.Sprint("f", i)
		e := &v1alpha1.MemberExport{Spec: v1alpha1.MemberExportSpec{Service: v1alpha1.ServiceReference{Namespace: "flood", Name: name}, ExportedAt: metav1.Now()}}
		e.Namespace, e.Name = v1alpha1.MemberNamespace("hostile"), name+".flood"
		e.Spec.Type, e.Spec.Ports = v1alpha1.ClusterSetIP, []v1alpha1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
		h.Eventually("the hub takes an export", func() bool { return client.IgnoreAlreadyExists(h.hub.Create(h.Context(), e.DeepCopy())) == nil })
		routes = append(routes, routeTo("flood", name, name+".example.com", name, 80))
	}
	apply(t, story.Lab.Hub, strings.Join(routes, ""))
	says(t, object{"hub", "httproute", "flood", "f9"}, "Accepted=True")
}

// settled waits until edges have grown, and grow no more.
func (h *hostile) settled(what string, begun func() bool) {
	h.Helper()
	h.Eventually(what, begun)
	t := h.TB.(*testing.T)
	last := memoryOfEnvoys(t)
	h.Eventually(what+" is all there", func() bool {
		time.Sleep(2 * time.Second)
		more := grown(t, last)
		last = memoryOfEnvoys(t)
		return more < 256
	})
}

func percentiles(samples []load.Sample) string {
	var took []time.Duration
	for _, s := range samples {
		took = append(took, s.Took)
	}
	slices.Sort(took)
	return fmt.Sprint(took[len(took)/2].Round(100*time.Microsecond), " ", took[len(took)*99/100].Round(100*time.Microsecond))
}
