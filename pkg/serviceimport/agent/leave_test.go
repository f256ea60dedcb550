package agent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// A cluster that leaves loses what was imported, and nothing else: not the Services of
// people, nor what the hub imports in its own cluster.
func TestRemoveImports(t *testing.T) {
	m := newMember(t, "leaves")
	m.Must(client.IgnoreAlreadyExists(m.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "leaves"}})))
	meta := func(name string, labels, annotations map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "leaves", Name: name, Labels: labels, Annotations: annotations}
	}
	made := map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy}
	served := map[string]string{v1alpha1.AnnotationRegion: "us"}
	importOf := func(o metav1.ObjectMeta) client.Object {
		return &mcsv1beta1.ServiceImport{ObjectMeta: o, Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP, Ports: []mcsv1beta1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	}
	serviceOf := func(o metav1.ObjectMeta) client.Object {
		return &corev1.Service{ObjectMeta: o, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	slice := func(o metav1.ObjectMeta) client.Object {
		return &discoveryv1.EndpointSlice{ObjectMeta: o, AddressType: discoveryv1.AddressTypeIPv4}
	}
	goes := []client.Object{importOf(meta("web", made, served)), serviceOf(meta("crossway-web", made, nil)),
		slice(meta("imported", map[string]string{discoveryv1.LabelManagedBy: v1alpha1.ManagedByImports}, nil))}
	stays := []client.Object{importOf(meta("hubs", made, nil)), importOf(meta("theirs", nil, nil)), serviceOf(meta("web", nil, nil)), slice(meta("web-1", nil, nil))}
	for _, o := range append(goes, stays...) {
		m.Must(m.client.Create(t.Context(), o))
	}
	m.Must(RemoveImports(t.Context(), m.client))
	for _, o := range goes {
		if err := m.client.Get(t.Context(), client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("%T %s is left: %v", o, o.GetName(), err)
		}
	}
	for _, o := range stays {
		m.Must(m.client.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	}
}
