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
// then in the order in which route and host came. The last one is left out, so nobody
// takes the place of a route that is served.

// Guests are the routes of wide hosts at narrower ones, where not all have room, in the
// order in which they were admitted.
type Guests struct {
	admitted []guest
}

// guest is a route of a wide host at a narrower one.
type guest struct {
	place place
	wide  string
	route fleet.RouteRef
	cost  cost
}

// seniority is the place of a route, or of a host, in the order of admission.
type seniority struct {
	newcomer bool // it is not accepted at its generation
	order    int  // by age
}

func (s seniority) compare(other seniority) int {
	if s.newcomer != other.newcomer {
		if s.newcomer {
			return 1
		}
		return -1
	}
	return cmp.Compare(s.order, other.order)
}

func (b *build) seniorityOf(r *route, gateway fleet.ObjectName) seniority {
	kept := b.kept[r.ref]
	accepted := slices.Contains(r.object.AcceptedBy(), gateway) || kept != nil && slices.Contains(kept.gateways, gateway)
	return seniority{!accepted, r.order}
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
	served    map[*guests]bool
	room      *room // of its namespace at the Gateway
	last      payer // who paid last, and the room of its namespace there
}

// payer is a namespace that pays for the wider rules of a host.
type payer struct {
	namespace string
	room      *room
}

// widerAdmission is the admission of routes of wider hosts to narrower ones.
type widerAdmission struct {
	*build
	rooms    map[account]*room
	routes   map[routeAt]*wideRoute
	admitted []guest
}

// everyone is the payer of accounts for all payers.
const everyone = "*"

// Parts of budgets for the rules of wider hosts. They are beside what routes may take of
// a Gateway, so that routes never take their room. What there is for the rules of one
// namespace is never all, so that it cannot keep out those of another.
const (
	partOfGateway          = 4
	partOfGatewayNamespace = 8
	partOfPayer            = 4
)

// chargesAtHost are the charges for rules of a namespace at a narrow host.
func (b *build) chargesAtHost(n *narrowHost, guest string, c cost) [4]charge {
	limits, gateway := &b.parents[n.place.gateway].budgets, place{gateway: n.place.gateway}
	space, time, whole := c.untimed(), cost{time: c.time}, limits.gateway.untimed()
	return [...]charge{
		{account{place: gateway, payer: everyone, namespace: guest}, space, whole.part(partOfGatewayNamespace)},
		{account{place: gateway, payer: everyone}, space, whole.part(partOfGateway)},
		{account{place: n.place}, time, cost{time: limits.gateway.time}},
		{account{place: n.place, namespace: guest}, time, cost{time: limits.namespace.time}},
	}
}

// chargesOfPayer are the charges for the same to a namespace that pays.
func (b *build) chargesOfPayer(n *narrowHost, payer, guest string, c cost) [2]charge {
	limit := b.parents[n.place.gateway].budgets.namespace.untimed()
	part := limit
	if payer != guest {
		part = limit.part(partOfPayer)
	}
	return [...]charge{{account{namespace: payer}, c.untimed(), limit}, {account{payer: payer, namespace: guest}, c.untimed(), part}}
}

func (a *widerAdmission) room(c charge) *room {
	r := a.rooms[c.to]
	if r == nil {
		r = &room{a.accounts.used[c.to], c.limit}
		a.rooms[c.to] = r
	}
	return r
}

// admitWider admits routes of wider hosts to narrower ones, as far as there is room.
func (b *build) admitWider() {
	a := &widerAdmission{build: b, rooms: map[account]*room{}, routes: map[routeAt]*wideRoute{}}
	hosts := make(map[place]*narrowHost, len(b.narrow))
	for i := range b.narrow {
		hosts[b.narrow[i].place] = b.narrow[i]
		a.note(b.narrow[i])
	}
	routes := slices.SortedFunc(maps.Values(a.routes), func(x, y *wideRoute) int {
		return cmp.Or(x.seniority.compare(y.seniority), x.gateway.Compare(y.gateway))
	})
	a.admitEarlier(hosts)
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
func (a *widerAdmission) note(n *narrowHost) {
	gateway := n.place.gateway
	n.seniority = a.seniorityOf(n.routes[0], gateway)
	for _, namespace := range n.namespaces() {
		n.payers = append(n.payers, payer{namespace, a.room(a.chargesOfPayer(n, namespace, "", cost{})[0])})
	}
	for _, g := range n.wider {
		g.narrow, g.admitted = n, []*route{}
		if g.noted {
			continue
		}
		g.noted = true
		for _, r := range g.routes {
			at := routeAt{r.ref, gateway}
			if a.routes[at] == nil {
				room := a.room(a.chargesAtHost(n, r.ref.Name.Namespace, cost{})[0])
				a.routes[at] = &wideRoute{route: r, gateway: gateway, seniority: a.seniorityOf(r, gateway), served: map[*guests]bool{}, room: room}
			}
			a.routes[at].hosts = append(a.routes[at].hosts, g.wideHost)
		}
	}
}

// admitEarlier admits the routes that the last Build admitted, unless they became dearer.
func (a *widerAdmission) admitEarlier(hosts map[place]*narrowHost) {
	if a.in.Guests == nil {
		return
	}
	for i := range a.in.Guests.admitted {
		last := &a.in.Guests.admitted[i]
		n, w := hosts[last.place], a.routes[routeAt{last.route, last.place.gateway}]
		if n == nil || w == nil || w.plan.each.over(last.cost) {
			continue
		}
		k := slices.IndexFunc(n.wider, func(g *guests) bool { return g.name == last.wide && slices.Contains(w.hosts, g.wideHost) })
		if k >= 0 {
			a.admitGuest(n.wider[k], w)
		}
	}
}

// admitHost admits the routes that came before a narrow host.
func (a *widerAdmission) admitHost(n *narrowHost) {
	for _, g := range n.wider {
		for _, w := range g.came {
			a.admitGuest(g, w)
		}
		g.guests = append(g.guests, g)
	}
}

// admitRoute admits a route to the narrow hosts that came before it.
func (a *widerAdmission) admitRoute(w *wideRoute) {
	for _, wide := range w.hosts {
		for _, g := range wide.guests {
			a.admitGuest(g, w)
		}
		wide.came = append(wide.came, w)
	}
}

// admitGuest admits a route to a narrow host if there is room. All namespaces of the
// host's routes pay that have room, and one is enough: so none depends on another.
func (a *widerAdmission) admitGuest(g *guests, w *wideRoute) {
	n, namespace, each := g.narrow, w.ref.Name.Namespace, w.plan.each
	// Most attempts end here: thousands of routes at thousands of hosts are millions.
	isFull := func(p payer) bool {
		return !p.room.fits(each.untimed()) || w.last.namespace == p.namespace && !w.last.room.fits(each.untimed())
	}
	if !w.room.fits(each.untimed()) || w.served[g] || !slices.ContainsFunc(n.payers, func(p payer) bool { return !isFull(p) }) {
		return
	}
	atHost, paid := a.chargesAtHost(n, namespace, each), false
	if !a.fit(atHost[:]) {
		return
	}
	for _, p := range n.payers {
		charges := a.chargesOfPayer(n, p.namespace, namespace, each)
		w.last = payer{p.namespace, a.room(charges[1])}
		if a.fit(charges[:]) {
			a.charge(charges[:])
			paid = true
		}
	}
	if paid {
		a.charge(atHost[:])
		g.admitted, w.served[g] = append(g.admitted, w.route), true
		a.admitted = append(a.admitted, guest{n.place, g.name, w.ref, each})
	}
}

func (a *widerAdmission) fit(charges []charge) bool {
	return !slices.ContainsFunc(charges, func(c charge) bool { return !a.room(c).fits(c.amount) })
}

func (a *widerAdmission) charge(charges []charge) {
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
func (a *widerAdmission) conclude(routes []*wideRoute) {
	b := a.build
	b.guests, b.without, b.memo.wideRoutes = &Guests{a.admitted}, map[routeAt]hostsWithout{}, map[fleet.RouteRef]bool{}
	for _, w := range routes {
		b.memo.wideRoutes[w.ref] = true
		without := hostsWithout{others: -len(w.served) - 1}
		for _, wide := range w.hosts {
			without.others += len(wide.guests)
			if at := slices.IndexFunc(wide.guests, func(g *guests) bool { return !w.served[g] }); at >= 0 && without.first == "" {
				without.first = wide.guests[at].narrow.place.host
			}
		}
		if without.first != "" {
			b.without[routeAt{w.ref, w.gateway}] = without
		}
	}
}

// rulesOf are the rules of the routes that are admitted to a narrow host.
func (b *build) rulesOf(g *guests) []model.Rule {
	switch {
	case g.admitted == nil || len(g.admitted) == len(g.routes):
		return g.rules
	case len(g.admitted) == 0:
		return nil
	}
	slices.SortFunc(g.admitted, func(x, y *route) int { return cmp.Compare(x.order, y.order) })
	orders := make([]int, len(g.admitted))
	for i, r := range g.admitted {
		orders[i] = r.order
	}
	if g.parts == nil {
		g.parts = map[string][]model.Rule{}
	}
	key := fmt.Sprint(orders)
	rules, found := g.parts[key]
	if !found {
		for _, r := range g.admitted {
			rules = append(rules, r.rules...)
		}
		rules = sorted(rules, ruleOrder)
		g.parts[key] = rules
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
