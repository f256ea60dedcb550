package gateway

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Memo is a Build that is done, for the next one to begin from. What a route
// came to holds while it is the same object and everything around the routes is
// the same, too. A route's plan is a function of the object alone, as is a
// certificate's fault. A Memo is never changed once a Result carries it, so
// several Builds may read one.
type Memo struct {
	around  Input              // all but Routes and Memo
	routes  []*Route           // Input.Routes
	judged  []*judged          // what each of routes came to
	secrets map[memoKey]string // certificateFault of those that count

	// What a patch needs.
	index    *index // of around
	parents  map[fleet.ObjectName]*parent
	policies map[fleet.ServiceName]*policy
	shared   map[fleet.RouteRef]bool // routes that have a host together with another one
	result   Result                  // without Memo
}

// memoKey is one version of an object that an API server has stored.
type memoKey struct {
	uid     types.UID
	version string
}

// sameAround says whether two snapshots have the same lists in the same memory
// of all that a route is judged by. Nobody changes a list that was in an Input.
func sameAround(a, b *Input) bool {
	return model.SameSlice(a.GatewayClasses, b.GatewayClasses) && model.SameSlice(a.Gateways, b.Gateways) && model.SameSlice(a.Parameters, b.Parameters) &&
		model.SameSlice(a.Grants, b.Grants) && model.SameSlice(a.Namespaces, b.Namespaces) && model.SameSlice(a.Secrets, b.Secrets) &&
		model.SameSlice(a.Imports, b.Imports) && model.SameSlice(a.ServiceImports, b.ServiceImports) && model.SameSlice(a.Services, b.Services) &&
		model.SameSlice(a.Policies, b.Policies) && slices.Equal(a.Nacks, b.Nacks)
}

// known are the verdicts of the last Build by route.
func (m *Memo) known() map[routeSource]*judged {
	known := make(map[routeSource]*judged, len(m.routes))
	for i, route := range m.routes {
		known[route.source] = m.judged[i]
	}
	return known
}

// judgeAll judges the routes that are new, or all where anything around them is.
func (b *build) judgeAll() []*judged {
	b.known = b.last.known()
	all := make([]*judged, len(b.in.Routes))
	for i, route := range b.in.Routes {
		if known := b.known[route.source]; b.same && known != nil {
			all[i] = known
		} else {
			all[i] = b.judge(route)
		}
	}
	return all
}

func (b *build) planOf(route *Route) *routePlan {
	if known := b.known[route.source]; known != nil && known.plan != nil {
		return known.plan
	}
	return route.source.plan()
}

// faultOf is certificateFault, remembered. A Secret that no API server has
// stored is looked at each time.
func (b *build) faultOf(secret *corev1.Secret) string {
	if secret.UID == "" || secret.ResourceVersion == "" {
		return certificateFault(secret)
	}
	key := memoKey{uid: secret.UID, version: secret.ResourceVersion}
	fault, found := b.last.secrets[key]
	if !found {
		fault = certificateFault(secret)
	}
	b.memo.secrets[key] = fault
	return fault
}
