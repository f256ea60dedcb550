package hub

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

// hostile is an export that tries to take service shop/<service>: with a date before
// all others, every property another one, and the ports of others under its own names.
func (f *fixture) hostile(namespace, service string) {
	f.Helper()
	f.export(namespace, service, 1, func(s *v1alpha1.MemberExportSpec) {
		s.ExportUID, s.ExportedAt = "hostile", metav1.Unix(0, 0)
		s.Type = v1alpha1.Headless
		s.Labels = map[string]string{"team": "hostile"}
		s.Ports = []v1alpha1.ServicePort{
			{Name: "evil", Port: 80, Protocol: "TCP", AppProtocol: ptr.To("kubernetes.io/h2c")}, {Name: "http", Port: 9999, Protocol: "TCP"},
		}
	})
}

func (f *fixture) legitimate(namespace, service string) {
	f.Helper()
	f.export(namespace, service, 5, func(s *v1alpha1.MemberExportSpec) { s.ExportUID = namespace })
}

// wantIncumbents checks that the import is that of the two legitimate exports, in
// every part that is not about who exports.
func (f *fixture) wantIncumbents(when, service string) {
	f.Helper()
	var have v1alpha1.FleetService
	f.Must(f.client.Get(f.Context(), types.NamespacedName{Namespace: v1alpha1.FleetNamespace, Name: service + ".shop"}, &have))
	got := fmt.Sprintf("%s %v", have.Spec.Type, have.Spec.Labels)
	for _, p := range have.Spec.Ports {
		if slices.Equal(p.Clusters, []string{"v-evil"}) {
			continue // a new port of its own may join
		}
		got += fmt.Sprintf(" %s %d %s in %v", p.Name, p.Port, ptr.Deref(p.AppProtocol, "-"), p.Clusters)
	}
	if want := "ClusterSetIP map[] http 80 - in [v-east v-west]"; got != want {
		f.Errorf("%s the import is %s, want %s", when, got, want)
	}
}

// loseStatuses removes the records of all MemberExports of a service.
func (f *fixture) loseStatuses(service string) {
	f.Helper()
	for _, namespace := range []string{"member-v-west", "member-v-east", "member-v-evil"} {
		f.Must(apply.Status(f.Context(), f.client, v1alpha1.HubFieldManager, &v1alpha1.MemberExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + ".shop"},
			Status:     v1alpha1.MemberExportStatus{Conditions: f.memberExport(namespace, service).Status.Conditions}}))
		if f.memberExport(namespace, service).Status.Seen != nil {
			f.Fatal("the record is still there")
		}
	}
}

func (f *fixture) deleteFleetService(service string) {
	f.Helper()
	f.Must(f.client.Delete(f.Context(), &v1alpha1.FleetService{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: service + ".shop"}}))
	f.Must(f.client.List(f.Context(), &v1alpha1.FleetServiceList{}))
}

// An export that comes later takes nothing, whatever it says, and whatever the hub
// loses meanwhile: its memory, FleetServices, the records of MemberExports, or
// MemberExports themselves until agents push them again.
func TestIncumbentsStay(t *testing.T) {
	f := newFixture(t)
	for i, name := range []string{"v-evil", "v-west", "v-east"} { // the hostile member was there first
		f.member(name, fmt.Sprintf("10.%d.0.0/16", i+1))
	}
	const service = "victim"
	f.legitimate("member-v-west", service)
	f.legitimate("member-v-east", service)
	f.reconcile(service)
	f.hostile("member-v-evil", service)
	f.reconcile(service)
	f.wantIncumbents("with a hostile export", service)
	for _, ns := range []string{"member-v-west", "member-v-east", "member-v-evil"} {
		f.wantConditions(ns, service, "Conflict=True PortConflict,TypeConflict,LabelsConflict", "EndpointsAdmitted=True Admitted", "Ready=True Exported")
	}

	for _, loss := range []struct {
		what string
		lose func()
	}{
		{"its memory", func() {}},
		{"FleetServices", func() { f.deleteFleetService(service) }},
		{"the records of MemberExports", func() { f.loseStatuses(service) }},
	} {
		loss.lose()
		f.restart()
		f.reconcile(service)
		f.wantIncumbents("after the hub lost "+loss.what, service)
	}

	f.deleteFleetService(service)
	f.reconcile(service)
	f.wantIncumbents("after FleetServices were deleted by hand", service)

	for _, order := range [][]string{{"member-v-evil", "member-v-west", "member-v-east"}, {"member-v-east", "member-v-evil", "member-v-west"}} {
		for _, namespace := range order {
			f.Must(f.client.Delete(t.Context(), f.memberExport(namespace, service)))
			f.reconcile(service)
		}
		f.wantImport(service, "none")
		for _, namespace := range order {
			if namespace == "member-v-evil" {
				f.hostile(namespace, service)
			} else {
				f.legitimate(namespace, service)
			}
			f.reconcile(service)
		}
		f.wantIncumbents(fmt.Sprintf("after MemberExports were deleted and pushed again as %v", order), service)
	}
	if seen := f.memberExport("member-v-evil", service).Status.Seen; seen == nil || seen.Sequence != 3 || seen.ExportUID != "hostile" || len(seen.Differs) == 0 {
		t.Errorf("the record of the hostile export is %+v", seen)
	}
}

// A replica that saw only the end, or other states between, merges as the leader
// recorded.
func TestReplicasMergeAlike(t *testing.T) {
	f := newFixture(t)
	f.member("p-west", "10.1.0.0/16")
	f.member("p-east", "10.2.0.0/16")
	setType := func(namespace string, kind v1alpha1.ServiceType) {
		e := f.memberExport(namespace, "alike")
		e.Spec.Type = kind
		f.Must(f.client.Update(t.Context(), e))
	}
	f.export("member-p-west", "alike", 1, nil)
	f.export("member-p-east", "alike", 2, nil)
	f.reconcile("alike")

	other := &Merger{client: f.merger.client, merges: NewMerges(f.cache), now: f.merger.now} // of a replica that does not lead
	typeAt := func(m *Merger) v1alpha1.ServiceType {
		service, err := m.merge(t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "alike"}})
		f.Must(err)
		return service.merged.Import.Type
	}
	typeAt(other)

	setType("member-p-east", v1alpha1.Headless) // the leader sees each of these, the other only the end
	f.reconcile("alike")
	setType("member-p-west", v1alpha1.Headless)
	f.reconcile("alike")
	setType("member-p-east", v1alpha1.ClusterSetIP)
	f.reconcile("alike")
	if a, b := typeAt(f.merger), typeAt(other); a != v1alpha1.Headless || b != a {
		t.Errorf("the leader has %s in force, another replica %s", a, b)
	}
	e := f.memberExport("member-p-west", "alike")
	if !f.merger.merges.Confirms(e) || !other.merges.Confirms(e) {
		t.Error("replicas do not find their merge in the records")
	}
	e.Status.Seen.Sequence = 77
	if other.merges.Confirms(e) {
		t.Error("a record of another merge is confirmed")
	}
}

// The status of an export is written at most once a second, however often it
// changes, and says the last change in the end.
func TestStatusesOncePerSecond(t *testing.T) {
	f := newFixture(t)
	f.member("s1-west", "10.1.0.0/16")
	f.member("s1-east", "10.2.0.0/16")
	f.export("member-s1-west", "flaps", 1, nil)
	f.export("member-s1-east", "flaps", 2, nil)
	f.reconcile("flaps")
	key := reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "flaps"}}
	statuses := func() string {
		return f.memberExport("member-s1-west", "flaps").ResourceVersion
	}
	before, writes := statuses(), 0
	f.now = f.now.Add(time.Second)
	for i := range 30 { // 3 s
		e := f.memberExport("member-s1-east", "flaps")
		e.Spec.Ports[0].Port = int32(80 + i%2)
		e.Spec.Labels = map[string]string{"try": fmt.Sprint(i)}
		f.Must(f.client.Update(t.Context(), e))
		f.Must(f.client.List(t.Context(), &v1alpha1.MemberExportList{}))
		f.now = f.now.Add(100 * time.Millisecond)
		_, err := f.merger.Reconcile(t.Context(), key)
		f.Must(err)
		result, err := f.merger.ReconcileStatus(t.Context(), key)
		f.Must(err)
		if now := statuses(); now != before {
			before, writes = now, writes+1
		} else if result.RequeueAfter <= 0 || result.RequeueAfter > time.Second {
			t.Errorf("change %d is said after %s", i, result.RequeueAfter)
		}
	}
	if writes < 2 || writes > 4 {
		t.Errorf("%d writes in 3 s", writes)
	}
	f.reconcile("flaps")
	if m := f.message("member-s1-west", "flaps", "Conflict"); !strings.Contains(m, "try=29") {
		t.Error(m)
	}
}

// FleetServices that cannot be read keep nobody from merging, and nothing is
// remembered of services that nobody exports.
func TestMergesForget(t *testing.T) {
	f := newFixture(t)
	merges := f.merger.merges
	name := fleet.ServiceName{Namespace: "shop", Name: "forgotten"}
	merge := func(exports ...serviceimport.Export) {
		f.Must(merges.Do(t.Context(), func(merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error {
			merge(name, exports)
			return nil
		}))
	}
	merge(serviceimport.Export{Cluster: "west"})
	merge()
	for _, remembered := range []bool{true, false} {
		if _, ok := merges.services[name]; ok != remembered {
			t.Errorf("remembered: %v, want %v", ok, remembered)
		}
		f.now = f.now.Add(2 * forgetInterval)
		f.Must(merges.Do(t.Context(), func(func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error { return nil }))
	}
}
