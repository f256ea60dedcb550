package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// memberAPI is how an agent of a member reaches the member API, which it finds by the ConfigMap, with the credential that it
// has.
func (f *fixture) memberAPI(cluster string) *rest.Config {
	f.t.Helper()
	own := envtestkit.As(f.t, registration.MemberUser(fleet.ClusterName(cluster), testkit.CredentialID), v1alpha1.MembersGroup)
	agent, err := client.New(own, client.Options{Scheme: newScheme()})
	testkit.Must(f.t, err)
	where := &corev1.ConfigMap{}
	testkit.EventuallySeen(f.t, "the agent is told where the member API is", func() (bool, any) {
		err := agent.Get(f.t.Context(), client.ObjectKey{Namespace: v1alpha1.MemberNamespace(cluster), Name: v1alpha1.MemberAPIConfigMap}, where)
		return err == nil && where.Data[v1alpha1.MemberAPIAddress] == "https://"+f.members, err
	})
	return &rest.Config{Host: where.Data[v1alpha1.MemberAPIAddress], QPS: -1, TLSClientConfig: rest.TLSClientConfig{
		CAData: []byte(where.Data[v1alpha1.MemberAPICA]), CertData: own.CertData, KeyData: own.KeyData}}
}

// reader is an agent of a member.
func (f *fixture) reader(cluster string) client.WithWatch {
	f.t.Helper()
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersion(mcsv1beta1.GroupVersion).WithKind("ServiceImport"), meta.RESTScopeNamespace)
	mapper.Add(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), meta.RESTScopeNamespace)
	reads, err := client.NewWithWatch(f.memberAPI(cluster), client.Options{Scheme: newScheme(), Mapper: mapper})
	testkit.Must(f.t, err)
	return reads
}

// A member reads over the hub what another exports, and nothing any more once it is not accepted. A ConfigMap that
// somebody deletes comes back.
func TestMembersRead(t *testing.T) {
	f := newFixture(t)
	f.startHub()
	member := func(name, cidr string) *v1alpha1.MemberCluster {
		return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us",
			Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"shop"}}, EndpointCIDRs: []string{cidr}}}
	}
	reading := member("us-reads", "10.77.0.0/16")
	f.make(member("us-west", "10.78.0.0/16"), reading)
	t.Cleanup(func() { _ = f.Delete(context.WithoutCancel(t.Context()), reading) })
	testkit.Joined(t, f, "us-reads")
	testkit.Eventually(t, "the hub is ready", f.ready)
	testkit.Eventually(t, "the member's namespace", func() bool {
		return f.Get(t.Context(), client.ObjectKey{Name: "member-us-west"}, &corev1.Namespace{}) == nil
	})
	f.export("10.78.0.1", 80)
	f.reader("us-reads")
	testkit.Must(t, f.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-reads", Name: v1alpha1.MemberAPIConfigMap}}))
	agent := f.reader("us-reads")
	testkit.EventuallySeen(t, "the agent reads the import", func() (bool, any) {
		var imports mcsv1beta1.ServiceImportList
		err := agent.List(t.Context(), &imports)
		return slices.ContainsFunc(imports.Items, func(i mcsv1beta1.ServiceImport) bool { return i.Name == "store" && len(i.Status.Clusters) == 1 }), err
	})
	testkit.Eventually(t, "the debug page says what it sees", func() bool { return strings.Contains(f.dump("members"), "us-reads") })

	w, err := agent.Watch(t.Context(), &mcsv1beta1.ServiceImportList{})
	testkit.Must(t, err)
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Fatalf("first event: %v", e)
	}
	testkit.Must(t, f.Get(t.Context(), client.ObjectKeyFromObject(reading), reading))
	reading.Spec.Accepted = false
	revoked := time.Now()
	testkit.Must(t, f.Update(t.Context(), reading))
	var last watch.Event
	for e := range w.ResultChan() {
		last = e
	}
	if status, _ := last.Object.(*metav1.Status); last.Type != watch.Error || status.Code != 403 {
		t.Errorf("the last event is %v", last)
	}
	t.Logf("the watch ended after %s", time.Since(revoked))
	if err := agent.List(t.Context(), &mcsv1beta1.ServiceImportList{}); !apierrors.IsForbidden(err) {
		t.Errorf("a new request: %v", err)
	}
}
