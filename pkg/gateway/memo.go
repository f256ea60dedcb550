package gateway

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Memo holds what Build worked out about single objects, known by their UID and
// resourceVersion. A certificate's fault and a route's plan are functions of the
// object alone; what a route came to holds while everything around the routes is
// the same, too. A Memo is never changed once a Result carries it, so several
// Builds may read one.
type Memo struct {
	judged  map[memoKey]*judged
	secrets map[memoKey]string // certificateFault
	around  Input              // all but Routes, Pools, Programmed and Memo
	index   *index             // of around
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
	same bool // both have the same around
}

func newMemory(in Input) *memory {
	m := &memory{last: in.Memo, next: &Memo{judged: make(map[memoKey]*judged, len(in.Routes)), secrets: map[memoKey]string{}, around: in}}
	if m.last == nil {
		m.last = &Memo{}
	}
	around := &m.next.around
	around.Routes, around.Pools, around.Programmed, around.Memo = nil, nil, nil, nil
	m.same = m.last.index != nil && sameAround(&m.last.around, around)
	if m.same {
		m.next.index = m.last.index
	} else {
		m.next.index = indexOf(in)
	}
	return m
}

// sameAround says whether two snapshots have the same lists in the same memory
// of all that a route is judged by. Nobody changes a list that was in an Input.
func sameAround(a, b *Input) bool {
	return sameList(a.GatewayClasses, b.GatewayClasses) && sameList(a.Gateways, b.Gateways) && sameList(a.Parameters, b.Parameters) &&
		sameList(a.Grants, b.Grants) && sameList(a.Namespaces, b.Namespaces) && sameList(a.Secrets, b.Secrets) &&
		sameList(a.Imports, b.Imports) && sameList(a.ServiceImports, b.ServiceImports) && sameList(a.Services, b.Services) &&
		sameList(a.Policies, b.Policies) && slices.Equal(a.Nacks, b.Nacks)
}

func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func (m *memory) judge(route *gatewayv1.HTTPRoute, work func() *judged) *judged {
	last := m.last.judged
	if !m.same {
		last = nil
	}
	return remembered(&route.ObjectMeta, last, m.next.judged, work)
}

func (m *memory) planRoute(route *gatewayv1.HTTPRoute) *routePlan {
	if last := m.last.judged[memoKey{uid: route.UID, version: route.ResourceVersion}]; last != nil && last.plan != nil {
		return last.plan
	}
	return planRoute(route)
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
