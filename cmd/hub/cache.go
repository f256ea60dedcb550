package main

import (
	"maps"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	memberapi "crossway.dev/crossway/pkg/memberapi/server"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	"crossway.dev/crossway/pkg/replica"
)

// newScheme has every kind that the hub reads or writes.
func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, gatewayv1beta1.Install, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		utilruntime.Must(add(scheme))
	}
	return scheme
}

// cacheOptions limit the cache to what the hub reads: no managed fields, of Secrets only certificates, of EndpointSlices
// only the endpoints.
// Where secretNamespaces are named, the hub may read no other Secrets but those of its own namespace.
func cacheOptions(own string, secretNamespaces []string, newInformer newInformerFunc) cache.Options {
	certificates := cache.ByObject{Field: fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS))}
	for _, namespace := range secretNamespaces {
		if certificates.Namespaces == nil {
			certificates.Namespaces = map[string]cache.Config{own: {}}
		}
		certificates.Namespaces[namespace] = cache.Config{}
	}
	kinds := registrationhub.CacheByObject()
	maps.Copy(kinds, map[client.Object]cache.ByObject{
		&corev1.Secret{}: certificates,
		&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{
			memberapi.ClientCANamespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", memberapi.ClientCAConfigMap)},
			cache.AllNamespaces:         {FieldSelector: fields.OneTermEqualSelector("metadata.name", v1alpha1.MemberAPIConfigMap)},
		}},
		&discoveryv1.EndpointSlice{}:                                 {Transform: stripSlice},
		registration.OptionalObject(registration.ClusterProfileKind): {Namespaces: map[string]cache.Config{v1alpha1.FleetNamespace: {}}},
		&appsv1.ControllerRevision{}:                                 {Namespaces: map[string]cache.Config{own: {}}, Label: labels.SelectorFromSet(labels.Set(reconciler.RefusalSelector()))},
	})
	return cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: kinds, NewInformer: newInformer}
}

type newInformerFunc = func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer

var isTrue, isFalse = true, false

// stripSlice keeps only the fields of a slice that make endpoints, and shares equal values: 150,000 endpoints take 25 MB
// instead of 90. The names of pods are kept where they are those of the hub's replicas.
func stripSlice(object any) (any, error) {
	s, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return object, nil
	}
	s.ManagedFields, s.Annotations = nil, nil
	zones := map[string]*string{}
	ofReplicas := s.Labels[discoveryv1.LabelServiceName] == replica.ServiceName
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if e.Zone != nil {
			if zones[*e.Zone] == nil {
				zones[*e.Zone] = e.Zone
			}
			e.Zone = zones[*e.Zone]
		}
		var pod *corev1.ObjectReference
		if ofReplicas {
			pod = replica.PodOf(e.TargetRef)
		}
		*e = discoveryv1.Endpoint{Addresses: e.Addresses, Hostname: e.Hostname, Zone: e.Zone, TargetRef: pod, Conditions: discoveryv1.EndpointConditions{
			Ready: sharedBool(e.Conditions.Ready), Serving: sharedBool(e.Conditions.Serving), Terminating: sharedBool(e.Conditions.Terminating)}}
	}
	return s, nil
}

func sharedBool(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &isTrue
	default:
		return &isFalse
	}
}
