package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	exportagent "crossway.dev/crossway/pkg/serviceexport/agent"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
)

// The hub's own cluster as a member: its agent exports and imports by the hub's
// member API, and each object has one writer. A hub that is killed and started
// again changes nothing.
func TestHubsOwnClusterIsAMember(t *testing.T) {
	f := newFixture(t)
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	own := f.joinLocal()
	f.startAgent("own")
	f.make(
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "l-shop", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "www", Port: 80}}}},
		sliceAt(client.ObjectKey{Namespace: "l-shop", Name: "web-x"}, "10.10.7.1", "www", map[string]string{discoveryv1.LabelServiceName: "web"}),
		&mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "l-shop", Name: "web"}},
	)
	want := "[10.77.0.1 10.10.7.1] of [own remote], 1 IPs"
	testkit.EventuallySeen(t, want, func() (bool, any) { got := f.importOf("web"); return got == want, got })

	before := f.settledVersions()
	f.stopHub()
	f.startHub()
	testkit.Eventually(t, "the hub is ready", f.ready)
	if after := f.settledVersions(); after != before {
		t.Errorf("the restarted hub changed\n%s\nbefore\n%s", after, before)
	}

	testkit.Must(t, f.Get(t.Context(), client.ObjectKeyFromObject(own), own))
	own.Spec.Imports = &v1alpha1.MemberImportRules{}
	testkit.Must(t, f.Update(t.Context(), own))
	want = "[] of [own remote], 0 IPs"
	testkit.EventuallySeen(t, want, func() (bool, any) { got := f.importOf("web"); return got == want, got })
}

// joinLocal makes the hub's own cluster a member, and another one whose export of
// l-shop/web is there already.
func (f *fixture) joinLocal() (own *v1alpha1.MemberCluster) {
	f.t.Helper()
	member := func(name, cidr string) *v1alpha1.MemberCluster {
		return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{
			Accepted: true, Region: "us", EndpointCIDRs: []string{cidr}, Local: name == "own",
			Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"l-shop"}},
		}}
	}
	own, remote := member("own", "10.10.7.0/24"), member("remote", "10.77.0.0/16") // the first is in --hub-cidrs
	f.make(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "l-shop"}}, own, remote)
	f.t.Cleanup(func() {
		testkit.Must(f.t, f.Delete(context.Background(), own))
		testkit.Must(f.t, f.Delete(context.Background(), remote))
	})
	testkit.Eventually(f.t, "the members' namespaces", func() bool {
		return f.Get(f.t.Context(), client.ObjectKey{Name: "member-remote"}, &corev1.Namespace{}) == nil
	})
	f.make(&v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-remote", Name: "web.l-shop"}, Spec: v1alpha1.MemberExportSpec{
		Service: v1alpha1.ServiceReference{Namespace: "l-shop", Name: "web"}, ExportedAt: metav1.Now(), ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
		Ports: []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
	}}, sliceAt(client.ObjectKey{Namespace: "member-remote", Name: "web-r"}, "10.77.0.1", "tcp-80", map[string]string{
		v1alpha1.LabelServiceName: "web", v1alpha1.LabelServiceNamespace: "l-shop", v1alpha1.LabelSourceCluster: "remote"}))
	return own
}

func sliceAt(key client.ObjectKey, address, port string, labels map[string]string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: labels}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Name: &port, Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}},
	}
}

// startAgent runs what an agent does, with an agent's credential for the hub.
func (f *fixture) startAgent(cluster fleet.ClusterName) {
	t := f.t
	mgr, err := ctrl.NewManager(envtestkit.Config(t), ctrl.Options{
		Scheme: newScheme(), Metrics: metricsserver.Options{BindAddress: "0"}, Controller: ctrlconfig.Controller{SkipNameValidation: ptr.To(true)},
	})
	testkit.Must(t, err)
	testkit.Joined(t, f, string(cluster))
	hub, err := exportagent.NewHub(envtestkit.As(t, registration.MemberUser(cluster, testkit.CredentialID), v1alpha1.MembersGroup), cluster, mgr.GetScheme())
	testkit.Must(t, err)
	testkit.Must(t, mgr.Add(hub))
	testkit.Must(t, exportagent.NewExporter(cluster, mgr, hub).SetupWithManager(mgr, nil))
	api, err := importagent.NewMemberAPI(hub.GetConfig, "test", hub.GetAPIReader(), cluster, mgr.GetScheme())
	testkit.Must(t, err)
	testkit.Must(t, mgr.Add(api))
	importer, err := importagent.NewImporter(cluster, mgr, api)
	testkit.Must(t, err)
	testkit.Must(t, importer.SetupWithManager(mgr, nil))
	testkit.Run(t, mgr.Start)
}

// importOf describes an import of l-shop: its endpoints, clusters, and IPs.
func (f *fixture) importOf(name string) string {
	var i mcsv1beta1.ServiceImport
	if err := f.Get(f.t.Context(), client.ObjectKey{Namespace: "l-shop", Name: name}, &i); err != nil {
		return err.Error()
	}
	clusters, addresses := []string{}, []string{}
	for _, c := range i.Status.Clusters {
		clusters = append(clusters, c.Cluster)
	}
	var list discoveryv1.EndpointSliceList
	testkit.Must(f.t, f.List(f.t.Context(), &list, client.InNamespace("l-shop"), client.MatchingLabels{mcsv1beta1.LabelServiceName: name}))
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int {
		return -slices.Compare([]string{a.Labels[mcsv1beta1.LabelSourceCluster]}, []string{b.Labels[mcsv1beta1.LabelSourceCluster]})
	})
	for _, s := range list.Items {
		addresses = append(addresses, s.Endpoints[0].Addresses...)
	}
	return fmt.Sprintf("%v of %v, %d IPs", addresses, clusters, len(i.Spec.IPs))
}

// settledVersions returns the versions of all that belongs to l-shop, once they have stayed the same for a while.
func (f *fixture) settledVersions() string {
	versions := func() (text string) {
		for _, list := range []client.ObjectList{&mcsv1beta1.ServiceImportList{}, &corev1.ServiceList{}, &discoveryv1.EndpointSliceList{}, &v1alpha1.MemberExportList{}} {
			for _, namespace := range []string{"l-shop", "member-own"} {
				testkit.Must(f.t, f.List(f.t.Context(), list, client.InNamespace(namespace)))
				testkit.Must(f.t, meta.EachListItem(list, func(o runtime.Object) error {
					text += fmt.Sprintf("%T %s %s\n", o, client.ObjectKeyFromObject(o.(client.Object)), o.(client.Object).GetResourceVersion())
					return nil
				}))
			}
		}
		return text
	}
	last, since := versions(), time.Now()
	testkit.Eventually(f.t, "nothing to be written", func() bool {
		if now := versions(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 3*time.Second
	})
	return last
}
