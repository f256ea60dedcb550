package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	identityagent "crossway.dev/crossway/pkg/registration/agent"
)

// A cluster whose credential was revoked leaves nevertheless: the hub takes nothing from
// it any more, and what it imported goes.
func TestLeaveOfARevokedCluster(t *testing.T) {
	here := newClient(t, "admin", "system:masters")
	revoked := newClient(t, registration.MemberUser("revoked", credentialID), v1alpha1.MembersGroup)
	testkit.Must(t, here.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "revoked-shop"}}))
	derived := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "revoked-shop", Name: "derived", Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	testkit.Must(t, here.Create(t.Context(), derived))
	if err := leaver(here)(t.Context(), revoked, identityagent.Credential{Member: "revoked"}); err != nil {
		t.Fatal(err)
	}
	if err := here.Get(t.Context(), client.ObjectKeyFromObject(derived), derived); !apierrors.IsNotFound(err) {
		t.Errorf("the derived Service: %v", err)
	}
}

// newClient is a client of the API server, which is member and hub.
func newClient(t *testing.T, user, group string) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		testkit.Must(t, add(scheme))
	}
	c, err := client.New(envtestkit.As(t, user, group), client.Options{Scheme: scheme})
	testkit.Must(t, err)
	return c
}
