package gateway

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// This file makes Build incremental. Without it, Build has the same Result. It
// relies on one invariant: a slice, a map or a Route that was in an Input is
// never changed. So a value in the same memory as before has the same content.

// patching enables patch. Tests set it to false to measure the difference.
var patching = true

// Memo carries the results of one Build to the next. The result of a route is
// reused if the route and every other input are the very same objects. A
// route's plan depends on the object alone, as does what is wrong with a
// certificate. A Memo is never changed once a Result carries it, so several
// Builds may read one.
type Memo struct {
	otherInputs Input              // all but Routes and Memo
	routes      []*Route           // Input.Routes
	results     []*routeResult     // of routes, in the same order
	secrets     map[memoKey]string // certificateProblem of Secrets that listeners use

	// The rest is for patch.
	index      *index // of otherInputs
	parents    map[fleet.ObjectName]*gatewayState
	policies   map[fleet.ServiceName]*policy
	shared     map[fleet.RouteRef]bool // routes that share a host with another route
	merged     mergedByOldest
	result     Result // without Memo
	accounts   *accounts
	overBudget map[routeAt]condition.Condition
	kept       map[fleet.RouteRef]*fallback
	slowdowns  slowdowns
	wider      widerRoom
	wideRoutes map[fleet.RouteRef]bool // routes of wide hosts, where narrower ones have no room for all of them
}

// memoKey identifies one version of an object in an API server.
type memoKey struct {
	uid     types.UID
	version string
}

// sameOtherInputs says whether two snapshots have the same lists, in the same
// memory, of everything that a route's result depends on.
func sameOtherInputs(a, b *Input) bool {
	return model.SameSlice(a.GatewayClasses, b.GatewayClasses) && model.SameSlice(a.Gateways, b.Gateways) && model.SameSlice(a.Parameters, b.Parameters) &&
		model.SameSlice(a.Grants, b.Grants) && model.SameSlice(a.Namespaces, b.Namespaces) && model.SameSlice(a.Secrets, b.Secrets) &&
		model.SameSlice(a.Imports, b.Imports) && model.SameSlice(a.ServiceImports, b.ServiceImports) && model.SameSlice(a.Services, b.Services) &&
		model.SameSlice(a.Policies, b.Policies)
}

// cached are the Memo's results by the object of their route.
func (m *Memo) cached() map[routeSource]*routeResult {
	cached := make(map[routeSource]*routeResult, len(m.routes))
	for i, route := range m.routes {
		cached[route.source] = m.results[i]
	}
	return cached
}

// evaluateRoutes evaluates the routes that are new or changed, or all routes if
// another input changed.
func (b *build) evaluateRoutes() []*routeResult {
	b.cached = b.last.cached()
	all := make([]*routeResult, len(b.in.Routes))
	for i, route := range b.in.Routes {
		all[i] = b.resultOf(route)
	}
	return all
}

// resultOf is the last Build's result of a route, if it is still valid, or a new
// one.
func (b *build) resultOf(route *Route) *routeResult {
	if b.cached == nil {
		b.cached = b.last.cached()
	}
	if result := b.cached[route.source]; b.same && result != nil && route.present == nil {
		return result
	}
	return b.evaluate(route)
}

func (b *build) planOf(route *Route) *routePlan {
	if result := b.cached[route.source]; result != nil && result.plan != nil {
		return result.plan
	}
	plan := route.source.plan()
	plan.setCost()
	return plan
}

// cachedCertificateProblem is certificateProblem, cached in the Memo. A Secret
// without UID or resourceVersion is checked each time.
func (b *build) cachedCertificateProblem(secret *corev1.Secret) string {
	if secret.UID == "" || secret.ResourceVersion == "" {
		return certificateProblem(secret)
	}
	key := memoKey{uid: secret.UID, version: secret.ResourceVersion}
	problem, found := b.last.secrets[key]
	if !found {
		problem = certificateProblem(secret)
	}
	b.memo.secrets[key] = problem
	return problem
}

// maxPatchedRoutes is the largest number of changed routes that are patched: each
// patch searches all hosts.
const maxPatchedRoutes = 16

// patch is the last Result with the parts of a few changed routes replaced, or
// false if other parts may differ, too. So the cost of a changed route does not
// depend on the number of routes. Unchanged parts stay in the same memory, and
// the last Result is not modified.
func (b *build) patch() (Result, bool) {
	last, in := b.last, &b.in
	if !patching || !b.same || len(last.routes) != len(in.Routes) || !model.SameSlice(last.otherInputs.Pools, in.Pools) ||
		last.otherInputs.CRDVersion != in.CRDVersion || last.result.WiderAdmissions != nil && last.result.WiderAdmissions != in.WiderAdmissions {
		return Result{}, false
	}
	var changed []int
	for i, route := range in.Routes {
		if route.earlier != last.routes[i].earlier { // it may be served now, or not any more
			return Result{}, false
		}
		if last.routes[i].source != route.source {
			if route.earlier != nil {
				return Result{}, false
			}
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
		if last.shared[old.ref] || last.wideRoutes[old.ref] || !old.patchable(result) || !next.result.replace(old, result, last.slowdowns) {
			return Result{}, false
		}
		var fits bool
		if next.wider, fits = next.wider.allows(old, result); !fits {
			return Result{}, false
		}
		if next.accounts, fits = b.recharged(next.accounts, old, result); !fits {
			return Result{}, false
		}
		next.results[i] = result
	}
	result := next.result
	result.Memo = &next
	return result, true
}

// patchable says whether a route whose result was r and is now other changes only
// its own rules, the contents of its assignments and its report. The reports of
// Gateways and of policies, whose ancestors may depend on routes, stay the same.
func (r *routeResult) patchable(other *routeResult) bool {
	sameKeys := slices.EqualFunc(r.assignments, other.assignments, func(x, y model.Assignment) bool { return x.Key == y.Key })
	return r.ours == other.ours && matchesAll(r.rules) == matchesAll(other.rules) && slices.Equal(r.policies, other.policies) && slices.Equal(r.attachPoints, other.attachPoints) && sameKeys &&
		(len(r.attachPoints) == 0 || len(r.rules) > 0 && slices.Equal(r.plan.hosts, other.plan.hosts))
}

// replace replaces the parts of old by those of next, and says whether it found
// all of them.
func (r *Result) replace(old, next *routeResult, slowdowns slowdowns) bool {
	if len(old.rules) > 0 && replaceRules(&r.Model, old.rules, next.rules) {
		for i := range next.assignments {
			if !replaceAssignment(&r.Model, slowdowns.slowed(old.assignments[i]), slowdowns.slowed(next.assignments[i])) {
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

// replaceRules replaces rules on all hosts that have exactly these rules, and
// says whether it found such a host.
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

// replacedHosts is a copy of hosts with old rules replaced by next, or nil if no
// host has exactly the old rules.
func replacedHosts(hosts []model.VirtualHost, old, next []model.Rule) (replaced []model.VirtualHost) {
	isWider := func(w model.WiderRules) bool { return model.SameSlice(w.Rules, old) }
	for i := range hosts {
		own, wider := model.SameSlice(hosts[i].Rules, old), slices.IndexFunc(hosts[i].Wider, isWider)
		if !own && wider < 0 {
			continue
		}
		if replaced == nil {
			replaced = slices.Clone(hosts)
		}
		if own {
			replaced[i].Rules = next
		}
		if wider >= 0 {
			replaced[i].Wider = slices.Clone(hosts[i].Wider)
			replaced[i].Wider[wider].Rules = next
		}
	}
	return replaced
}

// replaceAssignment replaces an assignment, and says whether it found it. If the
// two are equal, the list stays in the same memory.
func replaceAssignment(m *model.Model, old, next model.Assignment) (found bool) {
	at, found := slices.BinarySearchFunc(m.Assignments, next.Key, func(x model.Assignment, key string) int { return strings.Compare(x.Key, key) })
	if found && !reflect.DeepEqual(old, next) {
		m.Assignments = replaced(m.Assignments, at, next)
	}
	return found
}

// replaced is a copy of a list with one element replaced.
func replaced[T any](list []T, at int, element T) []T {
	list = slices.Clone(list)
	list[at] = element
	return list
}
