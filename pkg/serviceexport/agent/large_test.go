package agent

import (
	"fmt"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// A slice with more endpoints than the hub takes in one becomes several there, each with
// the MemberExport as its owner. One endpoint that changes is one write, whichever part it
// is in, also after a restart, and parts that are not needed go.
func TestLargeSlice(t *testing.T) {
	f := newFixture(t, "large")
	ns := f.namespace("large-shop")
	f.service(ns, "web")
	f.reconcile(ns, "web", "web-1")
	first := hubName(ns, "web", "web-1")
	names := serviceexport.PartNames(first)
	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) {
		for i := range 2*fleet.MaxSliceEndpoints + 48 {
			s.Endpoints = append([]discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)}}}, s.Endpoints...)
		}
	})
	f.wantWrites("with 250 endpoints", f.reconcile(ns, "web", "web-1"), sliceWrite, sliceWrite, sliceWrite)
	owner := f.memberExport(ns, "web").UID
	for i, want := range []int{100, 100, 50} {
		s := f.onHub(names[i], &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice)
		if len(s.Endpoints) != want || len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != owner {
			t.Errorf("%s has %d endpoints and the owners %v", s.Name, len(s.Endpoints), s.OwnerReferences)
		}
	}
	if s := f.onHub(first, &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice); s.Endpoints[0].Addresses[0] != "10.1.0.1" {
		t.Errorf("what was there first has lost its place: %v", s.Endpoints[0].Addresses)
	}
	f.start()
	f.wantWrites("after a restart", f.reconcile(ns, "web", "web-1"))
	if err := f.exporter.pushed(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}); err != nil {
		t.Error("after a restart: ", err)
	}
	no := false
	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) { s.Endpoints[3].Conditions.Ready = &no })
	f.wantWrites("with one endpoint that is not ready", f.reconcile(ns, "web", "web-1"), sliceWrite)

	f.Must(f.admin.Delete(t.Context(), f.onHub(names[1], &discoveryv1.EndpointSlice{})))
	f.waitForGone(names[1])
	if got := hubSliceRequests(t.Context(), &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: names[1]}}); got[0].Name != first {
		t.Errorf("an event of a part brings the key %s back", got[0].Name)
	}
	f.wantWrites("without a part that somebody deleted", f.reconcile(ns, "web", "web-1"), sliceWrite, sliceWrite)

	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) { s.Endpoints = s.Endpoints[len(s.Endpoints)-2:] })
	f.wantWrites("with 2 endpoints", f.reconcile(ns, "web", "web-1"), sliceWrite, sliceDelete, sliceDelete)
	f.clock = f.clock.Add(maxStatusDelay)
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "Ready=False Pending", "Valid=True Valid")
	f.lose(ns, "web")
	f.wantWrites("withdrawn", f.reconcile(ns, "web", "web-1"), exportDelete, sliceDelete)
}

// Slices that the hub does not take are named on the ServiceExport, with its answer, until
// it takes them.
func TestRefusedSlices(t *testing.T) {
	f := newFixture(t, "quota")
	ns := f.namespace("quota-shop")
	f.service(ns, "web")
	f.slice(ns, "web", "web-2", "10.1.0.3")
	f.reconcile(ns, "web", "web-1")
	f.writes.setFull(true)
	if err := f.reconcileSlice(hubName(ns, "web", "web-2")); err == nil {
		t.Error("the quota takes a second slice")
	}
	f.clock = f.clock.Add(maxStatusDelay)
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "EndpointsExported=False SlicesRefused", "Ready=False Pending", "Valid=True Valid")
	var export mcsv1beta1.ServiceExport
	f.Must(f.admin.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
	c := meta.FindStatusCondition(export.Status.Conditions, "EndpointsExported")
	for _, text := range []string{`"web-2"`, "exceeded quota", `MemberCluster "quota"`} {
		if c != nil && !strings.Contains(c.Message, text) {
			t.Errorf("%q is missing in: %s", text, c.Message)
		}
	}
	f.writes.setFull(false)
	f.Must(f.reconcileSlice(hubName(ns, "web", "web-2")))
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "Ready=False Pending", "Valid=True Valid")
}
