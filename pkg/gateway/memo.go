package gateway

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Memo holds what Build worked out about single objects from nothing but the
// objects themselves, by UID and resourceVersion. A Memo is never changed once
// a Result carries it, so several Builds may read one.
type Memo struct {
	routes  map[memoKey]*routePlan
	secrets map[memoKey]string // certificateFault
}

type memoKey struct {
	uid     types.UID
	version string
}

// memory is the Memo of the last Build and the one that this Build makes,
// which holds only what this Build met.
type memory struct {
	last *Memo
	next *Memo
}

func newMemory(last *Memo, routes int) *memory {
	if last == nil {
		last = &Memo{}
	}
	return &memory{last: last, next: &Memo{routes: make(map[memoKey]*routePlan, routes), secrets: map[memoKey]string{}}}
}

func (m *memory) planRoute(route *gatewayv1.HTTPRoute) *routePlan {
	return remembered(&route.ObjectMeta, m.last.routes, m.next.routes, func() *routePlan { return planRoute(route) })
}

func (m *memory) certificateFault(secret *corev1.Secret) string {
	return remembered(&secret.ObjectMeta, m.last.secrets, m.next.secrets, func() string { return certificateFault(secret) })
}

// remembered is work's result, from the last Build where the object is the
// same. Objects that no API server has stored are worked out each time.
func remembered[T any](object *metav1.ObjectMeta, last, next map[memoKey]T, work func() T) T {
	if object.UID == "" || object.ResourceVersion == "" {
		return work()
	}
	key := memoKey{uid: object.UID, version: object.ResourceVersion}
	result, found := last[key]
	if !found {
		result = work()
	}
	next[key] = result
	return result
}
