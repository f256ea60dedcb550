package gateway

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// This file makes Build incremental; without it, Build has the same Result. It
// rests on one invariant: nobody changes a slice, a map or a Route that was in
// an Input. So what is in the same memory as before is the same.

// patching switches patch off where false, to measure what it is worth.
var patching = true

// Memo carries the results of one Build to the next. The result of a route is
// reused if the route and every other input are the very same objects. A
// route's plan depends on the object alone, as does what is wrong with a
// certificate. A Memo is never changed once a Result carries it, so several
// Builds may read one.
type Memo struct {
	otherInputs Input              // all but Routes and Memo
	routes      []*Route           // Input.Routes
	results     []*routeResult     // what each of routes came to
	secrets     map[memoKey]string // certificateFault of those that count

	// What a patch needs.
	index    *index // of otherInputs
	parents  map[fleet.ObjectName]*gatewayState
	policies map[fleet.ServiceName]*policy
	shared   map[fleet.RouteRef]bool // routes that have a host together with another one
	result   Result                  // without Memo
}

// memoKey is one version of an object that an API server has stored.
type memoKey struct {
	uid     types.UID
	version string
}

// sameOtherInputs says whether two snapshots have the same lists in the same memory
// of all that a route is judged by. Nobody changes a list that was in an Input.
func sameOtherInputs(a, b *Input) bool {
	return model.SameSlice(a.GatewayClasses, b.GatewayClasses) && model.SameSlice(a.Gateways, b.Gateways) && model.SameSlice(a.Parameters, b.Parameters) &&
		model.SameSlice(a.Grants, b.Grants) && model.SameSlice(a.Namespaces, b.Namespaces) && model.SameSlice(a.Secrets, b.Secrets) &&
		model.SameSlice(a.Imports, b.Imports) && model.SameSlice(a.ServiceImports, b.ServiceImports) && model.SameSlice(a.Services, b.Services) &&
		model.SameSlice(a.Policies, b.Policies) && slices.Equal(a.Nacks, b.Nacks)
}

// cached are the results of the last Build by route.
func (m *Memo) cached() map[routeSource]*routeResult {
	cached := make(map[routeSource]*routeResult, len(m.routes))
	for i, route := range m.routes {
		cached[route.source] = m.results[i]
	}
	return cached
}

// evaluateRoutes judges the routes that are new, or all where anything otherInputs them is.
func (b *build) evaluateRoutes() []*routeResult {
	b.cached = b.last.cached()
	all := make([]*routeResult, len(b.in.Routes))
	for i, route := range b.in.Routes {
		if result := b.cached[route.source]; b.same && result != nil {
			all[i] = result
		} else {
			all[i] = b.evaluate(route)
		}
	}
	return all
}

func (b *build) planOf(route *Route) *routePlan {
	if result := b.cached[route.source]; result != nil && result.plan != nil {
		return result.plan
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

// maxPatchedRoutes is how many changed routes are patched at once: each looks at
// all hosts.
const maxPatchedRoutes = 16

// patch is the last Result with a few routes' own parts replaced, or false
// where more than that may be different. So one changed route costs itself and
// not all the others. What did not change is in the same memory as before, and
// nothing that the last Result has is changed.
func (b *build) patch() (Result, bool) {
	last, in := b.last, &b.in
	if !patching || !b.same || len(last.routes) != len(in.Routes) || !model.SameSlice(last.otherInputs.Pools, in.Pools) ||
		last.otherInputs.CRDVersion != in.CRDVersion {
		return Result{}, false
	}
	var changed []int
	for i, route := range in.Routes {
		if last.routes[i].source != route.source {
			changed = append(changed, i)
		}
	}
	if len(changed) > maxPatchedRoutes {
		return Result{}, false
	}
	b.index, b.parents, b.policies = last.index, last.parents, last.policies
	next := *last
	next.routes, next.results = in.Routes, slices.Clone(last.results)
	for _, i := range changed {
		old, result := last.results[i], b.evaluate(in.Routes[i])
		if last.shared[old.ref] || !old.patchable(result) || !next.result.replace(old, result) {
			return Result{}, false
		}
		next.results[i] = result
	}
	result := next.result
	result.Memo = &next
	return result, true
}

// patchable says whether a route that came to r and now comes to other changes
// nothing but its own rules, the contents of its assignments and its report: no
// Gateway's report, and no policy's, whose ancestors may depend on its routes.
func (r *routeResult) patchable(other *routeResult) bool {
	sameKeys := slices.EqualFunc(r.assignments, other.assignments, func(x, y model.Assignment) bool { return x.Key == y.Key })
	return r.ours == other.ours && slices.Equal(r.policies, other.policies) && slices.Equal(r.attachPoints, other.attachPoints) && sameKeys &&
		(len(r.attachPoints) == 0 || len(r.rules) > 0 && slices.Equal(r.plan.hosts, other.plan.hosts))
}

// replace puts next in the place of old, and says whether everything was where
// it is looked for.
func (r *Result) replace(old, next *routeResult) bool {
	if len(old.rules) > 0 && replaceRules(&r.Model, old.rules, next.rules) {
		for i := range next.assignments {
			if !replaceAssignment(&r.Model, &old.assignments[i], &next.assignments[i]) {
				return false
			}
		}
	}
	if !next.ours {
		return true
	}
	at, found := slices.BinarySearchFunc(r.reports, next.ref, func(x *objectReport, ref fleet.RouteRef) int { return x.Ref.Object().Compare(ref) })
	if found {
		r.reports = replaced(r.reports, at, &next.report)
	}
	return found
}

// replaceRules replaces rules on all hosts that have them and no others, and
// says whether there is one.
func replaceRules(m *model.Model, old, next []model.Rule) (found bool) {
	for i, listener := range m.Listeners {
		for j, chain := range listener.Chains {
			hosts := replacedHosts(chain.Hosts, old, next)
			if hosts == nil {
				continue
			}
			found, chain.Hosts = true, hosts
			listener.Chains = replaced(listener.Chains, j, chain)
			m.Listeners = replaced(m.Listeners, i, listener)
		}
	}
	return found
}

// replacedHosts is a copy of hosts with other rules, or nil where none has them.
func replacedHosts(hosts []model.VirtualHost, old, next []model.Rule) (replaced []model.VirtualHost) {
	for i := range hosts {
		if !model.SameSlice(hosts[i].Rules, old) {
			continue
		}
		if replaced == nil {
			replaced = slices.Clone(hosts)
		}
		replaced[i].Rules = next
	}
	return replaced
}

// replaceAssignment keeps the list where the assignment says what it said.
func replaceAssignment(m *model.Model, old, next *model.Assignment) (found bool) {
	at, found := slices.BinarySearchFunc(m.Assignments, next.Key, func(x model.Assignment, key string) int { return strings.Compare(x.Key, key) })
	if found && !reflect.DeepEqual(old, next) {
		m.Assignments = replaced(m.Assignments, at, *next)
	}
	return found
}

// replaced is a copy of a list in which one element is another.
func replaced[T any](list []T, at int, element T) []T {
	list = slices.Clone(list)
	list[at] = element
	return list
}
