package inventory

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is a member whose API server is also the hub's.
type fixture struct {
	testkit.T
	client client.Client
}

func (f *fixture) value(name string) string {
	o := registration.OptionalObject(registration.ClusterPropertyKinds[0])
	if err := f.client.Get(f.Context(), types.NamespacedName{Name: name}, o); err != nil {
		if apierrors.IsNotFound(err) {
			return ""
		}
		return err.Error()
	}
	value, _, _ := unstructured.NestedString(o.Object, "spec", "value")
	return value
}

func (f *fixture) eventually(name, want string) {
	f.Helper()
	testkit.EventuallySeen(f.TB, name+" to be "+want, func() (bool, any) { got := f.value(name); return got == want, got })
}

// The whole life of a member's ClusterProperties: none while their CRD is not installed,
// both afterwards, back after somebody changed or deleted them, and gone when the cluster
// leaves. Nothing writes them while nothing changes.
func TestClusterProperties(t *testing.T) {
	scheme := runtime.NewScheme()
	testkit.Must(t, clientgoscheme.AddToScheme(scheme))
	kinds := []program.Kind{{Object: &corev1.ConfigMap{}}, {Object: &corev1.Namespace{}, ClusterScoped: true}}
	for _, kind := range registration.ClusterPropertyKinds {
		kinds = append(kinds, program.Kind{Object: registration.OptionalObject(kind), ClusterScoped: true})
	}
	mgr, err := ctrl.NewManager(envtestkit.Config(t), ctrl.Options{Scheme: scheme, MapperProvider: program.Mapper(scheme, kinds), Metrics: metricsserver.Options{BindAddress: "0"}})
	testkit.Must(t, err)
	f := &fixture{testkit.T{TB: t}, mgr.GetClient()}
	properties := New(mgr.GetClient(), mgr.GetAPIReader(), "us-west")
	f.Must(properties.SetupWithManager(mgr, nil))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- mgr.Start(ctx) }()
	time.Sleep(time.Second) // it has asked once

	f.Must(f.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-us-west"}}))
	f.Must(f.client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-west", Name: v1alpha1.MemberAPIConfigMap},
		Data: map[string]string{v1alpha1.MemberAPIClusterSet: "crossway"}}))
	_, err = envtest.InstallCRDs(envtestkit.Config(t), envtest.CRDInstallOptions{Paths: []string{"../testdata/crds"}, MaxTime: time.Minute, PollInterval: 50 * time.Millisecond})
	f.Must(err)
	f.eventually(registration.PropertyCluster, "us-west")
	f.eventually(registration.PropertyClusterSet, "crossway")

	o := registration.OptionalObject(registration.ClusterPropertyKinds[0])
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: registration.PropertyCluster}, o))
	o.Object["spec"] = map[string]any{"value": "somebody"}
	f.Must(f.client.Update(t.Context(), o))
	f.eventually(registration.PropertyCluster, "us-west")
	f.Must(f.client.Delete(t.Context(), o))
	f.eventually(registration.PropertyCluster, "us-west")

	versions := func() string {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(registration.ClusterPropertyKinds[0].GroupVersion().WithKind("ClusterPropertyList"))
		f.Must(f.client.List(t.Context(), list))
		var all []string
		for _, o := range list.Items {
			all = append(all, o.GetName()+" "+o.GetResourceVersion())
		}
		return strings.Join(all, "\n")
	}
	again := New(f.client, properties.hub, properties.member) // beside the controller, which runs
	again.kind = registration.ClusterPropertyKinds[0]
	before := versions()
	for range 20 {
		for _, name := range names {
			_, err := again.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
			f.Must(err)
		}
	}
	if after := versions(); after != before {
		t.Errorf("written although nothing changed:\n%s\nbefore:\n%s", after, before)
	}

	// Of another implementation: it stays, whatever it says.
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: registration.PropertyClusterSet}, o))
	o.SetLabels(nil)
	o.Object["spec"] = map[string]any{"value": "another-fleet"}
	f.Must(f.client.Update(t.Context(), o))
	_, err = again.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: registration.PropertyClusterSet}})
	f.Must(err)
	stop() // it would write again what leaves
	f.Must(<-stopped)
	f.Must(Withdraw(t.Context(), properties.client))
	if got := f.value(registration.PropertyClusterSet); got != "another-fleet" {
		t.Errorf("%s of somebody else is %q", registration.PropertyClusterSet, got)
	}
	if got := f.value(registration.PropertyCluster); got != "" {
		t.Errorf("the cluster left, and %s is %q", registration.PropertyCluster, got)
	}
}
