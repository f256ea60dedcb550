package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// This file is about wider hosts whose rules do not all have room at the narrower
// ones. Routes are then admitted there one by one: first those that were there before,
// then by the later one of route and host. The last one is left out, so nobody
// takes the place of a route that is served. A hub that has just started knows from the
// statuses which routes have room everywhere (NarrowHostname is not on them).

// WiderAdmissions are the routes of wide hosts at narrower ones, where not all have room, in the
// order in which they were admitted.
type WiderAdmissions struct {
	admitted []widerAdmission
}

// widerAdmission is the admission of a route of a wide host at a narrower one.
type widerAdmission struct {
	place  place
	wide   string
	route  fleet.RouteRef
	cost   cost
	payers []string // the namespaces that pay
}

// seniority is the place of a route, or of a host, in the order of admission.
type seniority struct {
	newcomer bool // it is not accepted at its generation
	leftOut  bool // a route without room at some host, as its status says
	order    int  // by age
}

func (s seniority) compare(other seniority) int {
	last := func(s seniority) int {
		switch {
		case s.newcomer:
			return 2
		case s.leftOut:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(last(s), last(other)), cmp.Compare(s.order, other.order))
}

func (b *build) seniorityOf(r *route, gateway fleet.ObjectName) seniority {
	kept := b.kept[r.ref]
	accepted := slices.Contains(r.object.AcceptedBy(), gateway) || kept != nil && slices.Contains(kept.gateways, gateway)
	return seniority{newcomer: !accepted, order: r.order}
}

// room is what an account has room for.
type room struct {
	used, limit cost
}

func (r *room) fits(c cost) bool { return !r.used.plus(c).over(r.limit) }

// wideRoute is a route of wider hosts of one Gateway.
type wideRoute struct {
	*route
	gateway   fleet.ObjectName
	seniority seniority
	hosts     []*wideHost
	served    map[*widerRoutes]bool
	room      *room // of its namespace at the Gateway
	last      payer // who paid last, and the room of its namespace there
}

// payer is a namespace that pays for the wider rules of a host.
type payer struct {
	namespace string
	room      *room
}

// widerAdmitter admits routes of wider hosts to narrower ones.
type widerAdmitter struct {
	*build
	rooms    map[account]*room
	routes   map[routeAt]*wideRoute
	admitted []widerAdmission
}

// allPayers is the payer of the accounts of all payers together.
const allPayers = "*"

// Parts of budgets for the rules of wider hosts. They are beside what routes may take of
// a Gateway, and of the time of a host, so that routes never take their room. What there is for the rules of one
// namespace is never all, so that it cannot keep out those of another.
const (
	partOfGateway          = 4
	partOfGatewayNamespace = 8
	partOfPayer            = 4
)

// chargesAtHost are the charges for rules of a namespace at a narrow host.
func (b *build) chargesAtHost(n *narrowHost, namespace string, c cost) [4]charge {
	limits, gateway := &b.parents[n.place.gateway].budgets, place{gateway: n.place.gateway}
	space, time, whole := c.untimed(), cost{time: c.time}, limits.gateway.untimed()
	return [...]charge{
		{account{place: gateway, payer: allPayers, namespace: namespace}, space, whole.part(partOfGatewayNamespace)},
		{account{place: gateway, payer: allPayers}, space, whole.part(partOfGateway)},
		{account{place: n.place}, time, cost{time: limits.gateway.time + limits.gateway.time/partOfGateway}},
		{account{place: n.place, namespace: namespace}, time, cost{time: limits.namespace.time}},
	}
}

// chargesOfPayer are the charges for the same to a namespace that pays.
func (b *build) chargesOfPayer(n *narrowHost, payer, namespace string, c cost) [2]charge {
	limit := b.parents[n.place.gateway].budgets.namespace.untimed()
	part := limit
	if payer != namespace {
		part = limit.part(partOfPayer)
	}
	return [...]charge{{account{namespace: payer}, c.untimed(), limit}, {account{payer: payer, namespace: namespace}, c.untimed(), part}}
}

func (a *widerAdmitter) room(c charge) *room {
	r := a.rooms[c.to]
	if r == nil {
		r = &room{a.accounts.used[c.to], c.limit}
		a.rooms[c.to] = r
	}
	return r
}

// admitWider admits routes of wider hosts to narrower ones, as far as there is room.
func (b *build) admitWider() {
	a := &widerAdmitter{build: b, rooms: map[account]*room{}, routes: map[routeAt]*wideRoute{}}
	hosts := make(map[place]*narrowHost, len(b.narrow))
	for i := range b.narrow {
		hosts[b.narrow[i].place] = b.narrow[i]
		a.note(b.narrow[i])
	}
	routes := slices.SortedFunc(maps.Values(a.routes), func(x, y *wideRoute) int {
		return cmp.Or(x.seniority.compare(y.seniority), x.gateway.Compare(y.gateway))
	})
	a.admitAgain(hosts)
	slices.SortStableFunc(b.narrow, func(x, y *narrowHost) int { return x.seniority.compare(y.seniority) })
	next := 0
	for i := range b.narrow {
		n := b.narrow[i]
		for ; next < len(routes) && routes[next].seniority.compare(n.seniority) < 0; next++ {
			a.admitRoute(routes[next])
		}
		a.admitHost(n)
	}
	for ; next < len(routes); next++ {
		a.admitRoute(routes[next])
	}
	a.conclude(routes)
}

// note notes a narrow host: the wider routes, and the namespaces that pay for them.
func (a *widerAdmitter) note(n *narrowHost) {
	gateway := n.place.gateway
	n.seniority = a.seniorityOf(n.routes[0], gateway)
	for _, namespace := range n.namespaces() {
		n.payers = append(n.payers, payer{namespace, a.room(a.chargesOfPayer(n, namespace, "", cost{})[0])})
	}
	for _, wider := range n.wider {
		wider.narrow, wider.admitted = n, []*route{}
		if wider.noted {
			continue
		}
		wider.noted = true
		for _, r := range wider.routes {
			at := routeAt{r.ref, gateway}
			if a.routes[at] == nil {
				room := a.room(a.chargesAtHost(n, r.ref.Name.Namespace, cost{})[0])
				seniority := a.seniorityOf(r, gateway)
				seniority.leftOut = a.in.WiderAdmissions == nil && r.object.hasCondition(condition.NarrowHostname, gateway)
				a.routes[at] = &wideRoute{route: r, gateway: gateway, seniority: seniority, served: map[*widerRoutes]bool{}, room: room}
			}
			a.routes[at].hosts = append(a.routes[at].hosts, wider.wideHost)
		}
	}
}

// admitAgain admits the routes that the last Build admitted, unless they became dearer.
// The same namespaces pay, and then others that have room: a route that became cheaper
// must not take a room with which another one is paid for.
func (a *widerAdmitter) admitAgain(hosts map[place]*narrowHost) {
	if a.in.WiderAdmissions == nil {
		return
	}
	type again struct {
		n *narrowHost
		w *wideRoute
	}
	var admitted []again // as a.admitted
	for i := range a.in.WiderAdmissions.admitted {
		last := &a.in.WiderAdmissions.admitted[i]
		n, w := hosts[last.place], a.routes[routeAt{last.route, last.place.gateway}]
		if n == nil || w == nil || w.plan.each.over(last.cost) {
			continue
		}
		k := slices.IndexFunc(n.wider, func(wider *widerRoutes) bool {
			return wider.name == last.wide && slices.Contains(w.hosts, wider.wideHost)
		})
		paid := func(p payer) bool { return slices.Contains(last.payers, p.namespace) }
		if k >= 0 && a.admitAt(n.wider[k], w, paid) {
			admitted = append(admitted, again{n, w})
		}
	}
	for i, at := range admitted {
		last := &a.admitted[i]
		last.payers = append(last.payers, a.pay(at.n, at.w, func(p payer) bool { return !slices.Contains(last.payers, p.namespace) })...)
	}
}

// admitHost admits the routes whose turn came before that of a narrow host.
func (a *widerAdmitter) admitHost(n *narrowHost) {
	for _, wider := range n.wider {
		for _, w := range wider.earlierRoutes {
			a.admitAt(wider, w, everyPayer)
		}
		wider.earlierHosts = append(wider.earlierHosts, wider)
	}
}

// admitRoute admits a route to the narrow hosts whose turn came before.
func (a *widerAdmitter) admitRoute(w *wideRoute) {
	for _, wide := range w.hosts {
		for _, wider := range wide.earlierHosts {
			a.admitAt(wider, w, everyPayer)
		}
		wide.earlierRoutes = append(wide.earlierRoutes, w)
	}
}

func everyPayer(payer) bool { return true }

// admitAt admits a route to a narrow host if there is room. All namespaces of the
// host's routes pay that may and have room, and one is enough: so none depends on another.
func (a *widerAdmitter) admitAt(wider *widerRoutes, w *wideRoute, may func(payer) bool) bool {
	n, namespace, each := wider.narrow, w.ref.Name.Namespace, w.plan.each
	// Most attempts end here: thousands of routes at thousands of hosts are millions.
	isFull := func(p payer) bool {
		return !p.room.fits(each.untimed()) || w.last.namespace == p.namespace && !w.last.room.fits(each.untimed())
	}
	if !w.room.fits(each.untimed()) || w.served[wider] || !slices.ContainsFunc(n.payers, func(p payer) bool { return !isFull(p) }) {
		return false
	}
	atHost := a.chargesAtHost(n, namespace, each)
	if !a.fit(atHost[:]) {
		return false
	}
	payers := a.pay(n, w, may)
	if len(payers) == 0 {
		return false
	}
	a.charge(atHost[:])
	wider.admitted, w.served[wider] = append(wider.admitted, w.route), true
	a.admitted = append(a.admitted, widerAdmission{n.place, wider.name, w.ref, each, payers})
	return true
}

// pay charges those namespaces of a host's routes for a wide route that may pay and have
// room, and returns them.
func (a *widerAdmitter) pay(n *narrowHost, w *wideRoute, may func(payer) bool) (namespaces []string) {
	for _, p := range n.payers {
		if !may(p) {
			continue
		}
		charges := a.chargesOfPayer(n, p.namespace, w.ref.Name.Namespace, w.plan.each)
		w.last = payer{p.namespace, a.room(charges[1])}
		if a.fit(charges[:]) {
			a.charge(charges[:])
			namespaces = append(namespaces, p.namespace)
		}
	}
	return namespaces
}

func (a *widerAdmitter) fit(charges []charge) bool {
	return !slices.ContainsFunc(charges, func(c charge) bool { return !a.room(c).fits(c.amount) })
}

func (a *widerAdmitter) charge(charges []charge) {
	for _, c := range charges {
		r := a.room(c)
		r.used = r.used.plus(c.amount)
	}
}

// hostsWithout are the narrow hosts that do not serve a route: one, and how many others.
type hostsWithout struct {
	first  string
	others int
}

// conclude notes what was admitted, and which routes are left out.
func (a *widerAdmitter) conclude(routes []*wideRoute) {
	b := a.build
	b.widerAdmissions, b.without, b.memo.wideRoutes = &WiderAdmissions{a.admitted}, map[routeAt]hostsWithout{}, map[fleet.RouteRef]bool{}
	for _, w := range routes {
		b.memo.wideRoutes[w.ref] = true
		without := hostsWithout{others: -len(w.served) - 1}
		for _, wide := range w.hosts {
			without.others += len(wide.earlierHosts)
			if at := slices.IndexFunc(wide.earlierHosts, func(wider *widerRoutes) bool { return !w.served[wider] }); at >= 0 && without.first == "" {
				without.first = wide.earlierHosts[at].narrow.place.host
			}
		}
		if without.first != "" {
			b.without[routeAt{w.ref, w.gateway}] = without
		}
	}
}

// rulesOf are the rules of the routes that are admitted to a narrow host.
func (b *build) rulesOf(wider *widerRoutes) []model.Rule {
	switch {
	case wider.admitted == nil || len(wider.admitted) == len(wider.routes):
		return wider.rules
	case len(wider.admitted) == 0:
		return nil
	}
	slices.SortFunc(wider.admitted, func(x, y *route) int { return cmp.Compare(x.order, y.order) })
	orders := make([]int, len(wider.admitted))
	for i, r := range wider.admitted {
		orders[i] = r.order
	}
	if wider.parts == nil {
		wider.parts = map[string][]model.Rule{}
	}
	key := fmt.Sprint(orders)
	rules, found := wider.parts[key]
	if !found {
		for _, r := range wider.admitted {
			rules = append(rules, r.rules...)
		}
		rules = sorted(rules, ruleOrder)
		wider.parts[key] = rules
	}
	return rules
}

// reportWider adds the condition NarrowHostname to the reports on routes that some
// narrower hosts have no room for.
func (b *build) reportWider() {
	b.addConditions(func(at routeAt) []condition.Condition {
		without, found := b.without[at]
		if !found {
			return nil
		}
		return []condition.Condition{condition.RouteNarrowHostname(without.first, without.others)}
	}, len(b.without) > 0)
}
