package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/gateway/model"
)

// This file is about requests that no rule of their hostname matches. The rules of
// wider hostnames of the same listener serve them: HTTPRoute.hostnames gives
// precedence to the rules of the narrower one, and no more. Envoy looks at one virtual
// host only, so that of the narrower hostname has the wider rules, too. What that
// costs is bounded by what the routes leave of the budgets
// (docs/adr/0015-rules-of-wider-hostnames.md).

// narrowHost is a hostname with rules, and the wider ones with rules of its listener.
type narrowHost struct {
	place  place
	host   *model.VirtualHost
	routes []*route
	wider  []*widerRoutes

	// For widerAdmitter:
	seniority seniority // of its oldest route
	payers    []payer   // the namespaces of its routes
}

// namespaces are those of its routes, in the order of their oldest routes.
func (n *narrowHost) namespaces() (namespaces []string) {
	for _, r := range n.routes {
		if namespace := r.ref.Name.Namespace; !slices.Contains(namespaces, namespace) {
			namespaces = append(namespaces, namespace)
		}
	}
	return namespaces
}

// widerRoutes are the routes of a wide host at a narrow one.
type widerRoutes struct {
	*wideHost
	narrow   *narrowHost
	admitted []*route // nil: all
}

// matchesAll says whether some rule matches every request.
func matchesAll(rules []model.Rule) bool {
	return slices.ContainsFunc(rules, func(r model.Rule) bool {
		return r.Match.Path == model.PathMatch{Kind: model.PathPrefix, Value: "/"} && r.Match.Method == "" && len(r.Match.Headers)+len(r.Match.Query) == 0
	})
}

// wideHost is what the hosts that are narrower than a host need to know of it.
type wideHost struct {
	name   string
	routes []*route
	rules  []model.Rule    // of all routes
	costs  map[string]cost // of these, by namespace
	all    bool            // they match every request

	// For widerAdmitter:
	noted         bool
	earlierRoutes []*wideRoute            // its routes whose turn has come, in order
	earlierHosts  []*widerRoutes          // the narrower hosts whose turn has come
	parts         map[string][]model.Rule // the rules of some routes, by their places in the order of age
}

func newWideHost(name string, routes []*route, served []model.VirtualHost) *wideHost {
	at, _ := slices.BinarySearchFunc(served, name, func(h model.VirtualHost, name string) int { return strings.Compare(h.Hostname, name) })
	w := &wideHost{name: name, routes: routes, rules: served[at].Rules, costs: map[string]cost{}}
	for _, r := range routes {
		namespace := r.ref.Name.Namespace
		w.costs[namespace], w.all = w.costs[namespace].plus(r.plan.each), w.all || matchesAll(r.rules)
	}
	return w
}

// noteWider notes the wider hosts of the hosts of a chain. owners are the listeners
// of the port by hostname. It looks at the routes of each wide host once, because
// thousands of narrow ones may share thousands of rules.
func (b *build) noteWider(at place, served []model.VirtualHost, hosts map[string][]*route, owners map[string]*listener) {
	known := map[string]*wideHost{}
	for i := range served {
		host, routes := served[i].Hostname, hosts[served[i].Hostname]
		if len(routes) == 0 || host == anyHost || matchesAll(served[i].Rules) {
			continue
		}
		at.host = host
		n, owner, last := &narrowHost{place: at, host: &served[i], routes: routes}, ownerOf(host, owners), routes
		widerHosts(host, func(wide string) bool {
			if ownerOf(wide, owners) != owner {
				return false
			}
			others := hosts[wide]
			if wide == host || len(others) == 0 || slices.Equal(others, last) {
				return true
			}
			w := known[wide]
			if w == nil {
				w = newWideHost(wide, others, served)
				known[wide] = w
			}
			n.wider, last = append(n.wider, &widerRoutes{wideHost: w}), others
			return !w.all
		})
		if len(n.wider) > 0 {
			b.narrow = append(b.narrow, n)
		}
	}
}

// serveWider has the rules of wider hosts serve what those of narrower ones leave,
// as far as there is room. The namespaces of a host's routes pay. No route is refused
// because of them.
func (b *build) serveWider() {
	slices.SortFunc(b.narrow, func(x, y *narrowHost) int {
		return cmp.Or(cmp.Compare(x.routes[0].order, y.routes[0].order), x.place.compare(y.place))
	})
	b.memo.wider = b.widerRoom()
	if b.memo.wider == widerOverBudget {
		b.admitWider()
	}
	for i := range b.narrow {
		n := b.narrow[i]
		for _, wider := range n.wider {
			if rules := b.rulesOf(wider); len(rules) > 0 {
				n.host.Wider = append(n.host.Wider, model.WiderRules{Hostname: wider.name, Rules: rules})
			}
		}
	}
}

// widerRoom is how much room there is for the wider rules of all hosts together.
func (b *build) widerRoom() widerRoom {
	if len(b.narrow) == 0 {
		return noWiderRules
	}
	accounts := &accounts{used: maps.Clone(b.accounts.used)}
	var all []charge
	for i := range b.narrow {
		n := b.narrow[i]
		for _, wider := range n.wider {
			for namespace, c := range wider.costs {
				charges := b.chargesAtHost(n, namespace, c)
				all = append(all, charges[:]...)
				for _, payer := range n.namespaces() {
					charges := b.chargesOfPayer(n, payer, namespace, c)
					all = append(all, charges[:]...)
				}
			}
		}
	}
	accounts.add(all)
	room := widerHalfBudget
	for _, c := range all {
		used := accounts.used[c.to]
		if used.over(c.limit) {
			return widerOverBudget
		}
		if used.plus(used).over(c.limit) {
			room = widerNearBudget
		}
	}
	return room
}

// widerRoom says how much room the rules of wider hosts have.
type widerRoom int

const (
	noWiderRules    widerRoom = iota // there are none
	widerOverBudget                  // some have no room
	widerNearBudget                  // a route that costs more may leave some without room
	widerHalfBudget                  // they have room even if all routes cost twice as much
)

// allows says whether wider rules stay the same when a route changes, and how much
// room they have then at least.
func (w widerRoom) allows(old, next *routeResult) (widerRoom, bool) {
	if w == noWiderRules || old.plan == nil || next.plan == nil || old.plan.each == next.plan.each && old.plan.clusters == next.plan.clusters {
		return w, w == noWiderRules || (old.plan == nil) == (next.plan == nil)
	}
	twice := old.plan.each.plus(old.plan.each)
	more := next.plan.each.over(twice) || next.plan.clusters.over(old.plan.clusters.plus(old.plan.clusters))
	return widerNearBudget, w == widerHalfBudget && !more
}
