package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

const (
	exportWrite = "PATCH memberexports"
	sliceWrite  = "PATCH endpointslices"
)

// An export is one write, each of its slices is one, and a second reconcile, also
// after a restart, writes nothing.
func TestPush(t *testing.T) {
	f := newFixture(t, "push")
	ns := f.namespace("push-shop")
	f.service(ns, "web")
	f.slice(ns, "web", "web-2", "10.1.0.3")
	f.wantWrites("at first", f.reconcile(ns, "web", "web-1", "web-2"), exportWrite, sliceWrite, sliceWrite)

	export := f.memberExport(ns, "web")
	if len(export.Spec.Ports) != 1 || export.Spec.Ports[0].Port != 80 || export.Spec.Type != v1alpha1.ClusterSetIP {
		t.Errorf("exported %+v", export.Spec)
	}
	var source mcsv1beta1.ServiceExport
	f.Must(f.admin.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &source))
	if export.Spec.ExportUID != string(source.UID) || !export.Spec.ExportedAt.Equal(&source.CreationTimestamp) {
		t.Errorf("exported at %s with UID %q, want %s and %q", export.Spec.ExportedAt, export.Spec.ExportUID, source.CreationTimestamp, source.UID)
	}
	s := f.onHub(hubName(ns, "web", "web-1"), &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice)
	if len(s.Endpoints) != 2 || s.Endpoints[0].Addresses[0] != "10.1.0.1" {
		t.Errorf("endpoints %+v", s.Endpoints)
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != export.UID {
		t.Errorf("owners %+v, want the MemberExport %s", s.OwnerReferences, export.UID)
	}
	if s.Labels[discoveryv1.LabelServiceName] != "" || s.Labels[v1alpha1.LabelSourceCluster] != "push" {
		t.Errorf("labels %v", s.Labels)
	}
	f.wantConditions(ns, "web") // the status waits for the hub
	f.clock = f.clock.Add(maxStatusDelay)
	f.wantWrites("without an answer", f.reconcile(ns, "web"))
	f.wantConditions(ns, "web", "Ready=False Pending", "Valid=True Valid")

	f.wantWrites("unchanged", f.reconcile(ns, "web", "web-1", "web-2"))
	if err := f.exporter.FirstPush(t.Context()); err != nil {
		t.Error("after the push: ", err)
	}
	f.start()
	if err := f.exporter.FirstPush(t.Context()); err != nil {
		t.Error("after a restart: ", err)
	}
	f.wantWrites("after a restart", f.reconcile(ns, "web", "web-1", "web-2"))
}

// One changed slice is one write; a change that Strip removes is none.
func TestOneSliceChanges(t *testing.T) {
	f := newFixture(t, "change")
	ns := f.namespace("change-shop")
	f.service(ns, "web")
	f.slice(ns, "web", "web-2", "10.1.0.3")
	f.reconcile(ns, "web", "web-1", "web-2")

	change := func(edit func(*discoveryv1.EndpointSlice)) {
		t.Helper()
		f.changeSlice(ns, "web-1", edit)
	}
	no := false
	change(func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = &no })
	f.wantWrites("after one change", f.reconcile(ns, "web", "web-1", "web-2"), sliceWrite)

	change(func(s *discoveryv1.EndpointSlice) {
		node := "n1"
		s.Endpoints[0], s.Endpoints[1] = s.Endpoints[1], s.Endpoints[0]
		s.Endpoints[0].NodeName = &node
		s.Annotations = map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "now"}
	})
	f.wantWrites("after a change of order, node and annotation", f.reconcile(ns, "web", "web-1", "web-2"))

	// somebody changes the slice on the hub: the source wins
	s := f.onHub(hubName(ns, "web", "web-1"), &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice)
	before := s.ResourceVersion
	s.Endpoints[0].Addresses[0] = "10.9.9.9"
	f.Must(f.admin.Update(t.Context(), s))
	f.waitForHubCache(s, before)
	f.wantWrites("after a change on the hub", f.reconcile(ns, "web", "web-1", "web-2"), sliceWrite)
}

// A rename of a port writes the name, and no slice: neither when the Service has it
// first nor when the slice does, and not after a restart between the two. A port
// that is new is one write of each.
func TestPortIsRenamed(t *testing.T) {
	f := newFixture(t, "rename")
	ns := f.namespace("rename-shop")
	f.service(ns, "web")
	f.reconcile(ns, "web", "web-1")
	wantPorts := func(when string, want ...string) {
		t.Helper()
		s := f.onHub(hubName(ns, "web", "web-1"), &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice)
		var got []string
		for _, p := range s.Ports {
			got = append(got, fmt.Sprint(*p.Name, " ", *p.Port))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s the slice on the hub has ports %q, want %q", when, got, want)
		}
	}
	wantPorts("at first", "tcp-80 8080")

	f.changeService(ns, "web", func(s *corev1.Service) { s.Spec.Ports[0].Name = "http-web" })
	f.wantWrites("with a new name in the Service", f.reconcile(ns, "web", "web-1"), exportWrite)
	f.start()
	f.wantWrites("after a restart", f.reconcile(ns, "web", "web-1"))
	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = ptr.To("http-web") })
	f.wantWrites("with the new name in the slice", f.reconcile(ns, "web", "web-1"))

	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Name = ptr.To("") })
	f.wantWrites("without a name in the slice", f.reconcile(ns, "web", "web-1"))
	wantPorts("without a name in the slice", "tcp-80 8080")
	f.changeService(ns, "web", func(s *corev1.Service) { s.Spec.Ports[0].Name = "" })
	f.wantWrites("without a name", f.reconcile(ns, "web", "web-1"), exportWrite)
	if name := f.memberExport(ns, "web").Spec.Ports[0].Name; name != "" {
		t.Errorf("the MemberExport has the name %q", name)
	}

	f.changeService(ns, "web", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 })
	f.wantWrites("with another number", f.reconcile(ns, "web", "web-1"), exportWrite, sliceWrite)
	wantPorts("with another number", "tcp-81 8080")
}

// A slice waits for its MemberExport, which owns it.
func TestSliceWaitsForOwner(t *testing.T) {
	f := newFixture(t, "owner")
	ns := f.namespace("owner-shop")
	f.service(ns, "web")
	f.Must(f.reconcileSlice(hubName(ns, "web", "web-1")))
	f.wantWrites("without an owner", f.writes.list())
	if err := f.exporter.FirstPush(t.Context()); err == nil {
		t.Error("ready before anything was pushed")
	}
	f.wantWrites("with one", f.reconcile(ns, "web", "web-1"), exportWrite, sliceWrite)
}

// An export without a Service, or of a Service of type ExternalName, is invalid.
// One that becomes invalid is withdrawn with its slices, and comes back.
func TestInvalidExports(t *testing.T) {
	f := newFixture(t, "invalid")
	ns := f.namespace("invalid-shop")
	f.export(ns, "missing")
	f.wantWrites("without a Service", f.reconcile(ns, "missing"))
	f.wantConditions(ns, "missing", "Ready=False Failed", "Valid=False NoService")

	f.service(ns, "web")
	f.reconcile(ns, "web", "web-1")
	var service corev1.Service
	f.Must(f.member.GetClient().Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &service))
	service.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	f.Must(f.member.GetClient().Update(t.Context(), &service))
	f.wantWrites("as ExternalName", f.reconcile(ns, "web", "web-1"), "DELETE memberexports", "DELETE endpointslices")
	f.wantConditions(ns, "web", "Ready=False Failed", "Valid=False InvalidServiceType")
	f.wantNotOnHub("web."+ns, &v1alpha1.MemberExport{})

	service.Spec = corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}
	f.Must(f.member.GetClient().Update(t.Context(), &service))
	f.wantWrites("as ClusterIP again", f.reconcile(ns, "web", "web-1"), exportWrite, sliceWrite)
}

// A label that no object can carry is reported once, not with every reconcile,
// and its condition goes when the label does.
func TestInvalidMetadata(t *testing.T) {
	f := newFixture(t, "metadata")
	ns := f.namespace("metadata-shop")
	f.service(ns, "web")
	labels := func(exported map[string]string) {
		var export mcsv1beta1.ServiceExport
		f.Must(f.member.GetClient().Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
		export.Spec.ExportedLabels = exported
		f.Must(f.member.GetClient().Update(t.Context(), &export))
	}
	labels(map[string]string{"team": "shop", "not a label": "x"})
	f.reconcile(ns, "web", "web-1")
	f.setHubConditions(ns, "web", metav1.Condition{Type: "Ready", Status: "True", Reason: "Exported"})
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "MetadataExported=False InvalidMetadata", "Ready=True Exported", "Valid=True Valid")

	f.clock = f.clock.Add(time.Minute)
	f.inMember.reset()
	f.wantWrites("without a change", f.reconcile(ns, "web", "web-1"))
	if got := f.inMember.list(); len(got) != 0 {
		t.Errorf("writes to the member without a change: %v", got)
	}

	labels(map[string]string{"team": "shop"})
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "Ready=True Exported", "Valid=True Valid")
}

// What the hub's API server refuses is reported and not tried again and again; the agent is ready without it.
func TestRefusedByHub(t *testing.T) {
	f := newFixture(t, "refused")
	ns := f.namespace("refused-shop")
	f.service(ns, "web")
	var export mcsv1beta1.ServiceExport
	f.Must(f.member.GetClient().Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
	export.Spec.ExportedLabels = map[string]string{}
	for i := range 65 {
		export.Spec.ExportedLabels[fmt.Sprint("l", i)] = "x"
	}
	f.Must(f.member.GetClient().Update(t.Context(), &export))
	f.wantWrites("with 65 labels", f.reconcile(ns, "web", "web-1"), exportWrite)
	f.wantConditions(ns, "web", "Ready=False Failed", "Valid=True Valid")
	if err := f.exporter.pushed(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}); err != nil {
		t.Error("an export that is refused keeps the agent from being ready: ", err)
	}
}

// The hub's conditions are copied to the ServiceExport, and go with their cause;
// conditions of others stay.
func TestHubConditionsAreCopied(t *testing.T) {
	f := newFixture(t, "verdict")
	ns := f.namespace("verdict-shop")
	f.service(ns, "web")
	var export mcsv1beta1.ServiceExport
	f.Must(f.member.GetClient().Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
	now := metav1.Now()
	export.Status.Conditions = []metav1.Condition{{Type: "Others", Status: "True", Reason: "Theirs", LastTransitionTime: now}}
	f.Must(f.member.GetClient().Status().Update(t.Context(), &export))
	f.reconcile(ns, "web", "web-1")
	f.setHubConditions(ns, "web",
		metav1.Condition{Type: "Ready", Status: "True", Reason: "Exported", Message: "offered to 2 other clusters"},
		metav1.Condition{Type: "Conflict", Status: "True", Reason: "PortConflict", Message: "port"})
	f.wantWrites("for a status", f.reconcile(ns, "web"))
	f.wantConditions(ns, "web", "Conflict=True PortConflict", "Others=True Theirs", "Ready=True Exported", "Valid=True Valid")

	f.setHubConditions(ns, "web", metav1.Condition{Type: "Conflict", Status: "False", Reason: "NoConflicts"})
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "Conflict=False NoConflicts", "Others=True Theirs", "Ready=True Exported", "Valid=True Valid")

	f.inMember.reset()
	f.reconcile(ns, "web", "web-1")
	if got := f.inMember.list(); len(got) != 0 {
		t.Errorf("writes to the member without a change: %v", got)
	}

	f.Must(f.member.GetClient().Delete(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}))
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "Others=True Theirs", "Ready=False Failed", "Valid=False NoService")
}

// A condition says which version of the ServiceExport it is about: those of the hub
// are about the present one once the hub has seen what was pushed of it.
func TestObservedGeneration(t *testing.T) {
	f := newFixture(t, "observed")
	ns := f.namespace("observed-shop")
	f.service(ns, "web")
	f.reconcile(ns, "web")
	ready := metav1.Condition{Type: "Ready", Status: "True", Reason: "Exported"}
	f.setHubConditions(ns, "web", ready)
	f.reconcile(ns, "web")
	generations := func(when string, want map[string]int64) {
		t.Helper()
		var export mcsv1beta1.ServiceExport
		f.Must(f.admin.Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
		for _, c := range export.Status.Conditions {
			if c.ObservedGeneration != want[c.Type] {
				t.Errorf("%s condition %s has observedGeneration %d, want %d", when, c.Type, c.ObservedGeneration, want[c.Type])
			}
		}
	}
	relabel := func(value string) {
		var export mcsv1beta1.ServiceExport
		f.Must(f.member.GetClient().Get(t.Context(), types.NamespacedName{Namespace: ns, Name: "web"}, &export))
		export.Spec.ExportedLabels = map[string]string{"team": value}
		f.Must(f.member.GetClient().Update(t.Context(), &export))
	}
	generations("at first", map[string]int64{"Ready": 1, "Valid": 1})

	relabel("shop")
	f.reconcile(ns, "web")
	generations("while the hub has not answered", map[string]int64{"Ready": 1, "Valid": 1})
	f.clock = f.clock.Add(maxStatusDelay)
	f.reconcile(ns, "web")
	generations("when the hub does not answer", map[string]int64{"Ready": 1, "Valid": 2})
	f.setHubConditions(ns, "web", ready)
	f.reconcile(ns, "web")
	generations("with an answer", map[string]int64{"Ready": 2, "Valid": 2})

	f.writes.setCut(true)
	relabel("store")
	if f.reconcileExport(ns, "web") == nil {
		t.Error("a push that failed is not tried again")
	}
	f.clock = f.clock.Add(maxStatusDelay)
	if f.reconcileExport(ns, "web") == nil {
		t.Error("a push that failed is not tried again")
	}
	generations("while the hub cannot be reached", map[string]int64{"Ready": 2, "Valid": 3})
	f.writes.setCut(false)
}

// A Service that Kubernetes takes can be exported: its name may begin with a digit.
func TestServiceNames(t *testing.T) {
	f := newFixture(t, "names")
	ns := f.namespace("1-names")
	for _, name := range []string{"3d-viewer", "1", "0-" + strings.Repeat("x", 61)} {
		f.service(ns, name)
		f.wantWrites("for "+name, f.reconcile(ns, name, name+"-1"), exportWrite, sliceWrite)
	}
}

// A Service that Crossway derived from an import would export the fleet's endpoints
// to the fleet.
func TestDerivedService(t *testing.T) {
	f := newFixture(t, "derived")
	ns := f.namespace("derived-shop")
	f.service(ns, "crossway-abc")
	f.changeService(ns, "crossway-abc", func(s *corev1.Service) { s.Labels = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy} })
	f.wantWrites("of a derived Service", f.reconcile(ns, "crossway-abc", "crossway-abc-1"))
	f.wantConditions(ns, "crossway-abc", "Ready=False Failed", "Valid=False InvalidServiceType")
}

// While the hub cannot be reached, each key is tried again and the hub's last
// conditions stay on the ServiceExport. Afterwards nothing is lost: one write for
// each change, however often it was tried.
func TestHubUnreachable(t *testing.T) {
	f := newFixture(t, "away")
	ns := f.namespace("away-shop")
	f.service(ns, "web")
	f.reconcile(ns, "web", "web-1")
	f.setHubConditions(ns, "web", metav1.Condition{Type: "Ready", Status: "True", Reason: "Exported"})
	f.reconcile(ns, "web")

	f.writes.setCut(true)
	f.changeSlice(ns, "web-1", func(s *discoveryv1.EndpointSlice) { s.Endpoints = s.Endpoints[:1] })
	f.changeService(ns, "web", func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 })
	for range 3 {
		if f.reconcileExport(ns, "web") == nil || f.reconcileSlice(hubName(ns, "web", "web-1")) == nil {
			t.Error("a key whose write failed is not tried again")
		}
	}
	f.wantConditions(ns, "web", "Ready=True Exported", "Valid=True Valid")

	f.writes.setCut(false)
	f.wantWrites("back again", f.reconcile(ns, "web", "web-1"), exportWrite, sliceWrite)
	if port := f.memberExport(ns, "web").Spec.Ports[0].Port; port != 81 {
		t.Errorf("the hub has port %d", port)
	}
}

// Deleting the export withdraws it, also where that happened while the agent
// was away, and slices without a source go.
func TestWithdraw(t *testing.T) {
	f := newFixture(t, "withdraw")
	ns := f.namespace("withdraw-shop")
	f.service(ns, "web")
	f.slice(ns, "web", "web-2", "10.1.0.3")
	f.reconcile(ns, "web", "web-1", "web-2")

	f.Must(f.member.GetClient().Delete(t.Context(), sliceOf(ns, "web", "web-2")))
	f.wantWrites("without its second slice", f.reconcile(ns, "web", "web-1", "web-2"), "DELETE endpointslices")

	f.Must(f.admin.Delete(t.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}}))
	f.start()
	f.wantWrites("without the export", f.reconcile(ns, "web", "web-1"), "DELETE memberexports", "DELETE endpointslices")
	f.wantNotOnHub("web."+ns, &v1alpha1.MemberExport{})
	f.wantNotOnHub(hubName(ns, "web", "web-1"), &discoveryv1.EndpointSlice{})
}

// Slices of host names are not pushed; IPv6 slices are. A slice that changes its
// address type, which no API server allows, is replaced.
func TestAddressTypes(t *testing.T) {
	f := newFixture(t, "types")
	ns := f.namespace("types-shop")
	f.service(ns, "web")
	names := sliceOf(ns, "web", "web-names", "metadata.internal")
	names.AddressType = discoveryv1.AddressTypeFQDN
	f.Must(f.member.GetClient().Create(t.Context(), names))
	six := sliceOf(ns, "web", "web-6", "fd00::1")
	six.AddressType = discoveryv1.AddressTypeIPv6
	f.Must(f.member.GetClient().Create(t.Context(), six))
	f.wantWrites("at first", f.reconcile(ns, "web", "web-1", "web-names", "web-6"), exportWrite, sliceWrite, sliceWrite)
	f.clock = f.clock.Add(maxStatusDelay)
	f.reconcile(ns, "web")
	f.wantConditions(ns, "web", "EndpointsExported=False AddressTypeNotSupported", "Ready=False Pending", "Valid=True Valid")

	f.Must(f.member.GetClient().Delete(t.Context(), six))
	f.slice(ns, "web", "web-6", "10.1.0.6")
	f.wantWrites("with another type", f.reconcile(ns, "web", "web-6"), "DELETE endpointslices", sliceWrite)
}

// An endpoint without a zone gets its node's.
func TestZonesOfNodes(t *testing.T) {
	f := newFixture(t, "zones")
	ns := f.namespace("zones-shop")
	f.Must(f.member.GetClient().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "zones-n1", Labels: map[string]string{corev1.LabelTopologyZone: "us-a"}}}))
	f.service(ns, "web")
	s := sliceOf(ns, "web", "web-2", "10.1.0.3")
	node := "zones-n1"
	s.Endpoints[0].NodeName = &node
	f.Must(f.member.GetClient().Create(t.Context(), s))
	f.reconcile(ns, "web", "web-2")
	pushed := f.onHub(hubName(ns, "web", "web-2"), &discoveryv1.EndpointSlice{}).(*discoveryv1.EndpointSlice)
	if zone := pushed.Endpoints[0].Zone; zone == nil || *zone != "us-a" || pushed.Endpoints[0].NodeName != nil {
		t.Errorf("pushed %+v", pushed.Endpoints[0])
	}
}

// Names as long as they may be.
func TestLongNames(t *testing.T) {
	f := newFixture(t, fleet.ClusterName("l"+strings.Repeat("o", 48)+"g"))
	ns := f.namespace("n" + strings.Repeat("s", 62))
	name := "s" + strings.Repeat("v", 62)
	f.service(ns, name)
	f.wantWrites("with long names", f.reconcile(ns, name, name+"-1"), exportWrite, sliceWrite)
	f.onHub(hubName(ns, name, name+"-1"), &discoveryv1.EndpointSlice{})
}
