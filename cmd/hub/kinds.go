package main

import (
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// servingKinds are the kinds without which no edge can be served. They are in the
// snapshot.
func servingKinds() []program.Kind {
	kinds := []program.Kind{
		{Object: &gatewayv1.GatewayClass{}, ClusterScoped: true},
		{Object: &gatewayv1.Gateway{}, Resource: "gateways"},
		{Object: &gatewayv1beta1.ReferenceGrant{}},
		{Object: &v1alpha1.GatewayParameters{}, Resource: "gatewayparameters"},
		{Object: &v1alpha1.BackendPolicy{}},
		{Object: &v1alpha1.EdgePool{}, ClusterScoped: true},
		{Object: &v1alpha1.MemberCluster{}, ClusterScoped: true},
		{Object: &v1alpha1.MemberExport{}},
		{Object: &v1alpha1.FleetService{}}, // what was in force, where MemberExports do not say it
		{Object: &mcsv1beta1.ServiceImport{}},
		{Object: &corev1.Namespace{}, ClusterScoped: true},
		{Object: &corev1.Secret{}},
		{Object: &corev1.ConfigMap{}}, // the CA of members' certificates, and where the member API is
		{Object: &corev1.Service{}},
		{Object: &discoveryv1.EndpointSlice{}},
		{Object: &appsv1.ControllerRevision{}}, // records of what edges refuse
	}
	for _, route := range gateway.RouteKinds() {
		kinds = append(kinds, program.Kind{Object: route.Object})
	}
	return kinds
}

// writingKinds are the further kinds that only the writers read.
func writingKinds() []program.Kind {
	return []program.Kind{
		{Object: &coordinationv1.Lease{}},
		{Object: &corev1.ResourceQuota{}},
		{Object: &corev1.ServiceAccount{}}, // of join tokens
		{Object: &certificatesv1.CertificateSigningRequest{}, ClusterScoped: true},
		{Object: &rbacv1.Role{}},
		{Object: &rbacv1.RoleBinding{}},
	}
}

// otherKinds are read without a cache.
func otherKinds() []program.Kind { return []program.Kind{{Object: gatewayCRD(), ClusterScoped: true}} }

// optionalKinds are read and written once their CRD is installed, if ever.
func optionalKinds() []program.Kind {
	return []program.Kind{{Object: registration.OptionalObject(registration.ClusterProfileKind)}}
}

// gatewayCRD is a CRD of the Gateway API, whose annotations have the version of all.
func gatewayCRD() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: "gateways.gateway.networking.k8s.io"},
	}
}

func objectsOf(kinds []program.Kind) []client.Object {
	objects := make([]client.Object, len(kinds))
	for i, k := range kinds {
		objects[i] = k.Object
	}
	return objects
}

// isCA says that an object is the Secret of a CA, whose key nobody needs to be
// served: it is in no file.
func isCA(namespace string) func(runtime.Object) bool {
	return func(o runtime.Object) bool {
		secret, ok := o.(*corev1.Secret)
		return ok && secret.Namespace == namespace && (secret.Name == registration.EdgeCASecret || secret.Name == registration.MemberCASecret)
	}
}
