package gateway

import (
	"slices"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// This file is what becomes of an edit that is over budget: the route is served as
// it was accepted last, so that the edit takes nothing down.

// WithEarlier is a route with the last version of it that was accepted. Where the
// present version is over budget, the earlier one is served, in the present world:
// today's parents, grants and backends decide what it may do.
func (r *Route) WithEarlier(earlier *Route) *Route {
	route := *r
	if route.earlier = nil; earlier != nil {
		last := *earlier
		last.earlier = nil
		route.earlier = &last
	}
	return &route
}

// fallback is an earlier version of a route that is served instead of the present
// one.
type fallback struct {
	version  *Route
	result   *routeResult
	gateways []fleet.ObjectName // that serve it
	charges  []charge
	over     condition.Condition // of the present version
}

// hold charges the earlier version of a route for the Gateways that accepted it and
// that the present version would be served by. It is nil if there is none.
func (b *build) hold(route *Route, present *routeResult) *fallback {
	if route.earlier == nil {
		return nil
	}
	f := &fallback{version: route.earlier}
	if last := b.last.kept[route.Ref]; b.same && last != nil && last.version == route.earlier {
		f.result = last.result
	} else {
		f.result = b.resultOf(route.earlier)
	}
	accepted := append(acceptedBy(route.Status, f.version), acceptedBy(f.version.Status, f.version)...)
	for _, gateway := range f.result.gateways {
		if !slices.Contains(accepted, gateway) || !slices.Contains(present.gateways, gateway) {
			continue
		}
		if charges, over := b.admitRoute(f.result, gateway, len(f.gateways) == 0, true); over == nil {
			f.gateways, f.charges = append(f.gateways, gateway), append(f.charges, charges...)
		}
	}
	if len(f.gateways) == 0 {
		return nil
	}
	return f
}

// replace puts the present version of a route in the place of an earlier one, on all
// Gateways that serve that, if there is room. A version that takes no more of a
// budget than the earlier one has room in it.
func (b *build) replace(f *fallback, present *routeResult) bool {
	var charges []charge
	for i, gateway := range f.gateways {
		if alone := b.overAlone(present, gateway); alone != nil {
			f.over = *alone
			return false
		}
		charges = append(charges, b.chargesAt(present, gateway, i == 0)...)
	}
	before, after := sums(f.charges), sums(charges)
	for i := range charges {
		c := charges[i]
		c.amount = after[c.to]
		others := b.accounts.used[c.to].minus(before[c.to])
		if others.plus(c.amount).over(c.limit.higher(others.plus(before[c.to]))) {
			b.accounts.contested[c.to] = true
			f.over = noRoom(f.gatewayOf(c.to), &c, others)
			return false
		}
	}
	for _, c := range f.charges {
		b.accounts.used[c.to] = b.accounts.used[c.to].minus(c.amount)
	}
	b.accounts.add(charges)
	return true
}

// gatewayOf is the Gateway whose budget an account is about.
func (f *fallback) gatewayOf(a account) fleet.ObjectName {
	if a.place.gateway == (fleet.ObjectName{}) {
		return f.gateways[0]
	}
	return a.place.gateway
}

// sums are the sums of charges by account.
func sums(charges []charge) map[account]cost {
	all := make(map[account]cost, len(charges))
	for _, c := range charges {
		all[c.to] = all[c.to].plus(c.amount)
	}
	return all
}

// report is the report on the present version of a route, of which an earlier one is
// served.
func (f *fallback) report(present *objectReport) *objectReport {
	report := *present
	report.Parents = slices.Clone(report.Parents)
	for i := range report.Parents {
		parent := &report.Parents[i]
		if parent.Conditions[0].Status != "True" {
			continue
		}
		resolved := parent.Conditions[len(parent.Conditions)-1]
		if !slices.Contains(f.gateways, parentName(present.Ref.Object(), &parent.ParentRef)) {
			parent.Conditions = []condition.Condition{f.over, resolved}
			continue
		}
		parent.Conditions = []condition.Condition{condition.RouteAcceptedEarlier(f.version.Generation),
			condition.RouteKept(report.Ref.Generation, f.version.Generation, f.over), resolved}
	}
	return &report
}
