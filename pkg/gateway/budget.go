package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// budgets are the budgets of a Gateway, with defaults.
type budgets struct {
	regexSteps                int
	route, namespace, gateway cost
}

// defaultBudgets hold 1000 routes of one namespace, each with its own hostname and
// backend. All that one namespace may have takes an edge 64 MB at most.
func defaultBudgets() budgets {
	return budgets{
		regexSteps: 1000,
		route:      cost{routes: 4096, clusters: 128, bytes: 16 << 20, time: 5 * time.Millisecond},
		namespace:  cost{routes: 8192, clusters: 1200, bytes: 64 << 20, time: 6 * time.Millisecond},
		gateway:    cost{routes: 65536, clusters: 8000, bytes: 512 << 20, time: 8 * time.Millisecond},
	}
}

// with are budgets with the fields that are given replaced.
func (b budgets) with(given *v1alpha1.Budgets) budgets {
	set(&b.regexSteps, given.RegexSteps)
	b.route, b.namespace, b.gateway = b.route.with(&given.Route), b.namespace.with(&given.Namespace), b.gateway.with(&given.Gateway)
	return b
}

func set(to *int, given *int32) {
	if given != nil {
		*to = int(*given)
	}
}

func (c cost) with(given *v1alpha1.Budget) cost {
	set(&c.routes, given.Routes)
	set(&c.clusters, given.Clusters)
	if given.Memory != nil {
		c.bytes = int(given.Memory.Value())
	}
	if given.MatchMicroseconds != nil {
		c.time = time.Duration(*given.MatchMicroseconds) * time.Microsecond
	}
	return c
}

// lower are the lower ones of two budgets, field by field.
func (b budgets) lower(other budgets) budgets {
	return budgets{min(b.regexSteps, other.regexSteps), b.route.lower(other.route), b.namespace.lower(other.namespace), b.gateway.lower(other.gateway)}
}

func (c cost) lower(other cost) cost {
	return cost{min(c.routes, other.routes), min(c.clusters, other.clusters), min(c.bytes, other.bytes), min(c.time, other.time)}
}

func (c cost) higher(other cost) cost {
	return cost{max(c.routes, other.routes), max(c.clusters, other.clusters), max(c.bytes, other.bytes), max(c.time, other.time)}
}

// place is a hostname on a port of a Gateway: one request looks at its rules.
type place struct {
	gateway fleet.ObjectName
	port    uint16
	host    string
}

func (p place) compare(other place) int {
	return cmp.Or(p.gateway.Compare(other.gateway), cmp.Compare(p.port, other.port), cmp.Compare(p.host, other.host))
}

// account is what a budget is for: the routes of a namespace, of a Gateway, at a
// place, or of a namespace at a place; or for the rules of wider hosts at narrower ones,
// for which a payer pays. The other fields are empty.
type account struct {
	namespace string
	place     place
	payer     string
}

// accounts are what the routes that are admitted cost. They are immutable once a
// Memo has them.
type accounts struct {
	used map[account]cost
	// contested are the accounts in which a route found no room. Who has room in them
	// depends on all routes of the account.
	contested map[account]bool
}

// charge is what a route costs an account, and the account's limit.
type charge struct {
	to     account
	amount cost
	limit  cost
}

// chargesAt are a route's charges for one Gateway. Its clusters are charged once to
// its namespace, at the first Gateway.
func (b *build) chargesAt(r *routeResult, gateway fleet.ObjectName, first bool) []charge {
	places, limits := r.placesAt(gateway), &b.parents[gateway].budgets
	namespace := r.ref.Name.Namespace
	copies := r.plan.each.times(len(places))
	copies.time = 0
	whole := copies.plus(r.plan.clusters)
	charges := make([]charge, 0, 2+2*len(places))
	charges = append(charges, charge{account{place: place{gateway: gateway}}, whole, limits.gateway.untimed()})
	if !first {
		whole = copies
	}
	charges = append(charges, charge{account{namespace: namespace}, whole, limits.namespace.untimed()})
	for _, at := range places {
		charges = append(charges,
			charge{account{place: at}, cost{time: r.plan.each.time}, cost{time: limits.gateway.time}},
			charge{account{namespace: namespace, place: at}, cost{time: r.plan.each.time}, cost{time: limits.namespace.time}})
	}
	return charges
}

func (c cost) untimed() cost { c.time = 0; return c }

// over says whether a cost is over a limit.
func (c cost) over(limit cost) bool {
	return c.routes > limit.routes || c.clusters > limit.clusters || c.bytes > limit.bytes || c.time > limit.time
}

// routeAt is a route on one Gateway.
type routeAt struct {
	route   fleet.RouteRef
	gateway fleet.ObjectName
}

// admit decides which routes have room on their Gateways. Routes whose generation
// a Gateway accepted already come first there, then the others, both by age. So a
// route that is new or changed, or new on a Gateway, never takes the place of
// another. What a Gateway accepted stays within the budget of its namespace alone:
// listeners that are added make it dearer, and must not cost another namespace a
// route.
func (b *build) admit(byAge []int) {
	b.accounts = &accounts{used: make(map[account]cost, 4*len(byAge)), contested: map[account]bool{}}
	b.overBudget, b.kept = map[routeAt]condition.Condition{}, map[fleet.RouteRef]*fallback{}
	admitted := make([][]fleet.ObjectName, len(b.in.Routes))
	admit := func(at int, gateway fleet.ObjectName, accepted bool) {
		r := b.memo.results[at]
		if _, over := b.admitRoute(r, gateway, len(admitted[at]) == 0, accepted); over != nil {
			b.overBudget[routeAt{r.ref, gateway}] = *over
		} else {
			admitted[at] = append(admitted[at], gateway)
		}
	}
	held := map[int]*fallback{}
	for _, at := range byAge {
		acceptedBy := b.in.Routes[at].AcceptedBy()
		for _, gateway := range b.memo.results[at].gateways {
			if slices.Contains(acceptedBy, gateway) {
				admit(at, gateway, true)
			}
		}
		if len(acceptedBy) == 0 {
			held[at] = b.hold(b.in.Routes[at], b.memo.results[at])
		}
	}
	for _, at := range byAge {
		if f := held[at]; f != nil {
			if !b.replace(f, b.memo.results[at]) {
				b.kept[b.memo.results[at].ref] = f
				continue
			}
			admitted[at] = f.gateways
		}
		acceptedBy := b.in.Routes[at].AcceptedBy()
		for _, gateway := range b.memo.results[at].gateways {
			if !slices.Contains(acceptedBy, gateway) && !slices.Contains(admitted[at], gateway) {
				admit(at, gateway, false)
			}
		}
	}
}

// admitRoute charges a route for one of its Gateways, and returns the charges. If
// there is no room for it, it returns the condition that says so.
func (b *build) admitRoute(r *routeResult, gateway fleet.ObjectName, first, accepted bool) ([]charge, *condition.Condition) {
	if alone := b.overAlone(r, gateway); alone != nil {
		return nil, alone
	}
	charges := b.chargesAt(r, gateway, first)
	if full := b.accounts.full(charges, accepted); full != nil {
		for i := range charges {
			if over := b.accounts.used[charges[i].to].plus(charges[i].amount); over.over(charges[i].limit) {
				b.accounts.contested[charges[i].to] = true
			}
		}
		return nil, new(noRoom(gateway, full, b.accounts.used[full.to]))
	}
	b.accounts.add(charges)
	return charges, nil
}

// overAlone is the condition of a route that is over the budget of one route, or
// nil.
func (b *build) overAlone(r *routeResult, gateway fleet.ObjectName) *condition.Condition {
	limits := &b.parents[gateway].budgets
	for i := range r.plan.rules {
		if rule := &r.plan.rules[i]; rule.regexSteps > limits.regexSteps {
			return new(condition.RouteRegexOverBudget(fmt.Sprintf("rules[%d]", i), rule.regexSteps, limits.regexSteps, gateway))
		}
	}
	whole := r.plan.each.times(len(r.placesAt(gateway))).plus(r.plan.clusters)
	if whole.over(limits.route) {
		return new(condition.RouteOverBudget(gateway, whole.describe(limits.route), "one route"))
	}
	return nil
}

// noRoom is the condition of a route for which an account has no room, because others
// use it.
func noRoom(gateway fleet.ObjectName, c *charge, used cost) condition.Condition {
	var whose string
	switch at := c.to.place; {
	case at.host == "" && c.to.namespace != "":
		whose = fmt.Sprintf("all routes of namespace %q", c.to.namespace)
	case at.host == "":
		whose = "all its routes"
	case c.to.namespace != "":
		whose = fmt.Sprintf("the routes of namespace %q on host %q, port %d", c.to.namespace, at.host, at.port)
	default:
		whose = fmt.Sprintf("the routes on host %q, port %d", at.host, at.port)
	}
	return condition.RouteNoRoom(gateway, c.amount.describe(c.limit), whose, used.describe(c.limit))
}

// describe is a cost as text, with each part that the limit bounds.
func (c cost) describe(limit cost) string {
	if limit.bytes == 0 && limit.routes == 0 && limit.clusters == 0 {
		return fmt.Sprintf("%d of %d microseconds to choose a request's route", c.time.Microseconds(), limit.time.Microseconds())
	}
	text := fmt.Sprintf("%d of %d Envoy routes, %d of %d Envoy clusters, %.1f of %.1f MiB", c.routes, limit.routes, c.clusters, limit.clusters,
		float64(c.bytes)/(1<<20), float64(limit.bytes)/(1<<20))
	if limit.time > 0 {
		text += fmt.Sprintf(", %d of %d microseconds to choose a request's route", c.time.Microseconds(), limit.time.Microseconds())
	}
	return text
}

// full is the first charge for which its account has no room, or nil. A route that
// is accepted has room in accounts of all namespaces.
func (a *accounts) full(charges []charge, accepted bool) *charge {
	for i := range charges {
		c := &charges[i]
		if accepted && c.to.namespace == "" {
			continue
		}
		if a.used[c.to].plus(c.amount).over(c.limit) {
			return c
		}
	}
	return nil
}

func (a *accounts) add(charges []charge) {
	for _, c := range charges {
		a.used[c.to] = a.used[c.to].plus(c.amount)
	}
}

// recharged are the accounts after a route changed, or false if that may admit or
// refuse this route or another: then all of them must be admitted anew.
func (b *build) recharged(a *accounts, old, next *routeResult) (*accounts, bool) {
	for _, gateway := range next.gateways {
		if _, refused := b.last.overBudget[routeAt{old.ref, gateway}]; refused || b.overAlone(next, gateway) != nil {
			return nil, false
		}
	}
	before, after := b.chargesOf(old), b.chargesOf(next)
	for _, c := range slices.Concat(before, after) {
		if a.contested[c.to] {
			return nil, false
		}
	}
	if slices.Equal(before, after) {
		return a, true
	}
	changed := &accounts{used: maps.Clone(a.used), contested: a.contested}
	for _, c := range before {
		changed.used[c.to] = changed.used[c.to].minus(c.amount)
	}
	changed.add(after)
	fits := !slices.ContainsFunc(after, func(c charge) bool { return changed.used[c.to].over(c.limit) })
	return changed, fits
}

// chargesOf are a route's charges for all of its Gateways.
func (b *build) chargesOf(r *routeResult) (charges []charge) {
	for i, gateway := range r.gateways {
		charges = append(charges, b.chargesAt(r, gateway, i == 0)...)
	}
	return charges
}

// setPlaces sets the places where a route is served: the hosts that it has in common
// with its listeners, where no narrower listener has them (listener isolation). A
// broken listener counts: when it is repaired, its routes push no others out.
func (b *build) setPlaces(r *routeResult) {
	for _, at := range r.attachPoints {
		if !at.served {
			continue
		}
		p := b.parents[at.gateway]
		l := p.listeners[at.listener]
		if !l.ownsHostname() {
			continue
		}
		for _, host := range r.plan.hosts {
			if common := intersection(l.host, host); common != "" && ownerOf(common, p.owners[l.port]) == l {
				r.places = append(r.places, place{at.gateway, l.port, common})
			}
		}
	}
	slices.SortFunc(r.places, place.compare)
	r.places = slices.Compact(r.places)
	for _, at := range r.places {
		if len(r.gateways) == 0 || r.gateways[len(r.gateways)-1] != at.gateway {
			r.gateways = append(r.gateways, at.gateway)
		}
	}
}

// placesAt are the route's places on one Gateway.
func (r *routeResult) placesAt(gateway fleet.ObjectName) []place {
	of := func(p place, name fleet.ObjectName) int { return p.gateway.Compare(name) }
	from, _ := slices.BinarySearchFunc(r.places, gateway, of)
	to := from
	for to < len(r.places) && r.places[to].gateway == gateway {
		to++
	}
	return r.places[from:to]
}

// reportWithBudgets is the report on a route, with the condition OverBudget for
// each Gateway that has no room for it.
func (b *build) reportWithBudgets(r *routeResult) *objectReport {
	if f := b.kept[r.ref]; f != nil {
		return f.report(&r.report)
	}
	if len(b.overBudget) == 0 {
		return &r.report
	}
	report := &r.report
	for i := range r.report.Parents {
		parent := &r.report.Parents[i]
		over, found := b.overBudget[routeAt{r.ref, parentName(r.ref, &parent.ParentRef)}]
		if !found || parent.Conditions[0].Status != metav1.ConditionTrue {
			continue
		}
		if report == &r.report { // a Memo has the original
			copied := r.report
			copied.Parents = slices.Clone(copied.Parents)
			report = &copied
		}
		resolved := parent.Conditions[len(parent.Conditions)-1]
		report.Parents[i].Conditions = []condition.Condition{over, resolved}
	}
	return report
}

// parentName is the Gateway that a parentRef of a route names.
func parentName(route fleet.RouteRef, ref *gatewayv1.ParentReference) fleet.ObjectName {
	name := fleet.ObjectName{Namespace: route.Name.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil && *ref.Namespace != "" {
		name.Namespace = string(*ref.Namespace)
	}
	return name
}
