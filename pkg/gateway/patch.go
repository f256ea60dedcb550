package gateway

import (
	"reflect"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// few is how many changed routes are worth a patch: each looks at all hosts.
const few = 16

// patch is the last Result with a few routes' own parts replaced, or false
// where more than that may be different. So one changed route costs itself and
// not all the others. What did not change is in the same memory as before, and
// nothing that the last Result has is changed.
func (b *build) patch() (Result, bool) {
	last, in := b.last, &b.in
	if !b.same || len(last.routes) != len(in.Routes) || !model.SameSlice(last.around.Pools, in.Pools) ||
		last.around.CRDVersion != in.CRDVersion {
		return Result{}, false
	}
	var changed []int
	for i, route := range in.Routes {
		if last.routes[i].source != route.source {
			changed = append(changed, i)
		}
	}
	if len(changed) > few {
		return Result{}, false
	}
	b.index, b.parents, b.policies = last.index, last.parents, last.policies
	next := *last
	next.routes, next.judged = in.Routes, slices.Clone(last.judged)
	for _, i := range changed {
		old, judged := last.judged[i], b.judge(in.Routes[i])
		if last.shared[old.ref] || !old.alike(judged) || !next.result.replace(old, judged) {
			return Result{}, false
		}
		next.judged[i] = judged
	}
	result := next.result
	result.Memo = &next
	return result, true
}

// alike says whether a route that came to r and now comes to other changes
// nothing but its own rules, the contents of its assignments and its report.
func (r *judged) alike(other *judged) bool {
	sameKeys := slices.EqualFunc(r.assignments, other.assignments, func(x, y model.Assignment) bool { return x.Key == y.Key })
	return r.ours == other.ours && slices.Equal(r.seats, other.seats) && sameKeys &&
		(len(r.seats) == 0 || len(r.rules) > 0 && slices.Equal(r.plan.hosts, other.plan.hosts))
}

// replace puts next in the place of old, and says whether everything was where
// it is looked for.
func (r *Result) replace(old, next *judged) bool {
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
		r.reports = with(r.reports, at, &next.report)
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
			listener.Chains = with(listener.Chains, j, chain)
			m.Listeners = with(m.Listeners, i, listener)
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
		m.Assignments = with(m.Assignments, at, *next)
	}
	return found
}

// with is a copy of a list in which one element is another.
func with[T any](list []T, at int, element T) []T {
	list = slices.Clone(list)
	list[at] = element
	return list
}
