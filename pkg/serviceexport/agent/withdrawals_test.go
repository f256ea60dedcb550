package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
)

// shops makes n exported Services, s0 and so on, with a slice each, and pushes them.
func (f *fixture) shops(namespace string, n int) (names []string) {
	f.Helper()
	for i := range n {
		names = append(names, fmt.Sprint("s", i))
		f.service(namespace, names[i])
		f.reconcile(namespace, names[i], names[i]+"-1")
	}
	return names
}

// lose deletes a service from the member while no agent looks: its export, its
// Service and its slice.
func (f *fixture) lose(namespace string, names ...string) {
	f.Helper()
	for _, name := range names {
		meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
		for _, o := range []client.Object{&mcsv1beta1.ServiceExport{ObjectMeta: meta}, &corev1.Service{ObjectMeta: meta},
			&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-1"}}} {
			f.Must(f.member.GetClient().Delete(f.Context(), o))
		}
	}
}

// reconcileAll reconciles what every start does: all that the hub has and all that
// the member has, twice. It returns the writes to the hub, sorted.
func (f *fixture) reconcileAll(namespace string, names []string) []string {
	f.Helper()
	f.writes.reset()
	for range 2 {
		for _, name := range names {
			f.Must(f.reconcileExport(namespace, name))
			f.Must(f.reconcileSlice(hubName(namespace, name, name+"-1")))
		}
	}
	return slices.Sorted(slices.Values(f.writes.list()))
}

func (f *fixture) pause() string {
	f.Helper()
	return f.onHub(v1alpha1.AgentLease, &coordinationv1.Lease{}).GetAnnotations()[v1alpha1.AnnotationWithdrawalPaused]
}

// beat renews the Lease, and hears what it says.
func (f *fixture) beat() {
	f.Helper()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace(f.name), Name: v1alpha1.AgentLease},
		Spec:       coordinationv1.LeaseSpec{RenewTime: ptr.To(metav1.NewMicroTime(f.clock))},
	}
	f.Must(apply.Object(f.Context(), f.hub.GetClient(), v1alpha1.AgentFieldManager, lease, client.DisableReadYourWritesConsistency))
	f.exporter.Heard(lease)
}

const (
	exportDelete = "DELETE memberexports"
	sliceDelete  = "DELETE endpointslices"
	leaseWrite   = "PATCH leases"
)

// An agent that starts in a cluster that lost its etcd withdraws nothing, and says so
// on its Lease, also after restarts in the midst of a restore. What comes back is
// pushed as before, and may be withdrawn.
func TestLostCluster(t *testing.T) {
	f := newFixture(t, "lost")
	ns := f.namespace("lost-shop")
	names := f.shops(ns, 5)
	f.lose(ns, names...)
	f.start()
	f.wantWrites("of an empty cluster", f.reconcileAll(ns, names), leaseWrite)
	pause := f.pause()
	if pause != "5-of-5-20260101T000000Z" {
		t.Errorf("the Lease says %q", pause)
	}
	f.beat()
	if f.pause() != pause {
		t.Error("the heartbeat removes the pause")
	}
	f.start()
	f.wantWrites("of an empty cluster, after a restart", f.reconcileAll(ns, names))

	f.service(ns, "s0")
	f.service(ns, "s1")
	f.service(ns, "s2")
	f.wantWrites("with three services back", f.reconcileAll(ns, names), exportWrite, exportWrite, exportWrite)
	f.start()
	f.clock = f.clock.Add(time.Hour)
	f.wantWrites("with three of five back, after a restart", f.reconcileAll(ns, names))
	f.lose(ns, "s0")
	f.wantWrites("when one of them is deleted", f.reconcileAll(ns, names), sliceDelete, exportDelete)

	f.service(ns, "s3")
	f.service(ns, "s4")
	f.wantWrites("with all back", f.reconcileAll(ns, names), leaseWrite, exportWrite, exportWrite)
	if f.pause() != "" {
		t.Errorf("the Lease says %q although nothing is lacking", f.pause())
	}
}

// An admin who wants them gone says so on the Lease. The word is for one pause only.
func TestLostClusterIsLetGo(t *testing.T) {
	f := newFixture(t, "gone")
	ns := f.namespace("gone-shop")
	names := f.shops(ns, 4)
	say := func(word string) {
		t.Helper()
		lease := f.onHub(v1alpha1.AgentLease, &coordinationv1.Lease{}).(*coordinationv1.Lease)
		lease.Annotations[v1alpha1.AnnotationWithdraw] = word
		f.Must(f.admin.Update(t.Context(), lease))
		f.beat()
	}
	f.lose(ns, names...)
	f.start()
	f.wantWrites("of an empty cluster", f.reconcileAll(ns, names), leaseWrite)
	say("yes")
	f.wantWrites("after a word about something else", f.reconcileAll(ns, names))
	say(f.pause())
	f.wantWrites("after the admin's word", f.reconcileAll(ns, names),
		sliceDelete, sliceDelete, sliceDelete, sliceDelete, exportDelete, exportDelete, exportDelete, exportDelete, leaseWrite)
	if f.pause() != "" {
		t.Error("the pause has not ended")
	}

	names = f.shops(ns, 4)
	f.lose(ns, names...)
	f.clock = f.clock.Add(time.Hour)
	f.start()
	f.wantWrites("of a cluster that is empty again", f.reconcileAll(ns, names), leaseWrite)
}

// A cluster whose ServiceExports were restored before its Services, or before
// kube-controller-manager has made EndpointSlices, has not withdrawn anything either.
func TestHalfRestoredCluster(t *testing.T) {
	f := newFixture(t, "half")
	ns := f.namespace("half-shop")
	names := f.shops(ns, 4)
	f.lose(ns, names...)
	f.export(ns, "s0")
	f.export(ns, "s1")
	for _, name := range []string{"s2", "s3"} {
		f.service(ns, name)
		f.Must(f.member.GetClient().Delete(t.Context(), sliceOf(ns, name, name+"-1")))
	}
	f.start()
	f.wantWrites("of a cluster that is half restored", f.reconcileAll(ns, names), leaseWrite, exportWrite, exportWrite)
	f.wantConditions(ns, "s0", "Ready=False Failed", "Valid=False NoService")
}

// What somebody deleted while no agent ran is withdrawn at its start if it is little,
// and what is deleted while an agent runs always is.
func TestDeletionsAreWithdrawn(t *testing.T) {
	f := newFixture(t, "few")
	ns := f.namespace("few-shop")
	names := f.shops(ns, 7)
	f.lose(ns, names[:3]...)
	f.start()
	f.wantWrites("with four of seven left", f.reconcileAll(ns, names), sliceDelete, sliceDelete, sliceDelete, exportDelete, exportDelete, exportDelete)
	f.lose(ns, names[3:]...)
	f.wantWrites("when all others are deleted", f.reconcileAll(ns, names),
		sliceDelete, sliceDelete, sliceDelete, sliceDelete, exportDelete, exportDelete, exportDelete, exportDelete)
}

// An API server whose etcd was restored lists less than before. What nobody saw being
// deleted is judged together, as at a start: many services stay, few go a little later.
func TestServicesThatVanish(t *testing.T) {
	f := newFixture(t, "vanish")
	ns := f.namespace("vanish-shop")
	names := f.shops(ns, 8)
	vanish := func(names ...string) {
		t.Helper()
		f.lose(ns, names...)
		for _, name := range names {
			relisted := event.DeleteEvent{Object: sliceOf(ns, name, name+"-1"), DeleteStateUnknown: true}
			f.exporter.notesVanished(serviceOfSlice).DeleteFunc(relisted)
		}
	}
	vanish("s0", "s1")
	f.wantWrites("when two have just vanished", f.reconcileAll(ns, names))
	f.clock = f.clock.Add(vanishedDelay)
	f.wantWrites("when two of eight have vanished", f.reconcileAll(ns, names), sliceDelete, sliceDelete, exportDelete, exportDelete)
	vanish("s2", "s3", "s4", "s5")
	f.lose(ns, "s6")
	f.wantWrites("when others have just vanished", f.reconcileAll(ns, names), sliceDelete, exportDelete)
	f.clock = f.clock.Add(vanishedDelay)
	f.wantWrites("when four of five have vanished", f.reconcileAll(ns, names), leaseWrite)
	if f.pause() != "4-of-5-20260101T000010Z" {
		t.Errorf("the Lease says %q", f.pause())
	}
	vanish("s7")
	f.clock = f.clock.Add(vanishedDelay)
	f.wantWrites("when the last has vanished", f.reconcileAll(ns, names))
}
