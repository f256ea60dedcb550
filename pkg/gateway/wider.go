package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
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
	wider  []string
	cost   cost // of the wider rules
}

// matchesAll says whether some rule matches every request.
func matchesAll(rules []model.Rule) bool {
	return slices.ContainsFunc(rules, func(r model.Rule) bool {
		return r.Match.Path == model.PathMatch{Kind: model.PathPrefix, Value: "/"} && r.Match.Method == "" && len(r.Match.Headers)+len(r.Match.Query) == 0
	})
}

// wideHost is what the hosts that are narrower than a host need to know of it.
type wideHost struct {
	cost cost
	all  bool // its rules match every request
}

func newWideHost(routes []*route) *wideHost {
	w := &wideHost{}
	for _, r := range routes {
		w.cost, w.all = w.cost.plus(r.plan.each), w.all || matchesAll(r.rules)
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
		n, owner, last := narrowHost{place: at, host: &served[i], routes: routes}, ownerOf(host, owners), routes
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
				w = newWideHost(others)
				known[wide] = w
			}
			n.wider, n.cost, last = append(n.wider, wide), n.cost.plus(w.cost), others
			return !w.all
		})
		if len(n.wider) > 0 {
			b.narrow = append(b.narrow, n)
		}
	}
}

// serveWider has the rules of wider hosts serve what those of narrower ones leave,
// as far as there is room. The namespace of a host's oldest route pays. Hosts of
// older routes come first; no route is refused because of them.
func (b *build) serveWider() {
	slices.SortFunc(b.narrow, func(x, y narrowHost) int {
		return cmp.Or(cmp.Compare(x.routes[0].order, y.routes[0].order), x.place.gateway.Compare(y.place.gateway),
			cmp.Compare(x.place.port, y.place.port), strings.Compare(x.place.host, y.place.host))
	})
	accounts := &accounts{used: maps.Clone(b.accounts.used)}
	var all []charge
	for i := range b.narrow {
		n := &b.narrow[i]
		limits := &b.parents[n.place.gateway].budgets
		space := n.cost
		space.time = 0
		charges := []charge{
			{account{place: place{gateway: n.place.gateway}}, space, limits.gateway.untimed()},
			{account{namespace: n.routes[0].ref.Name.Namespace}, space, limits.namespace.untimed()},
			{account{place: n.place}, cost{time: n.cost.time}, cost{time: limits.gateway.time}},
		}
		if accounts.full(charges, false) != nil {
			b.cut = append(b.cut, *n)
			continue
		}
		accounts.add(charges)
		all = append(all, charges...)
		n.host.Wider = n.wider
	}
	half := func(c charge) bool { used := accounts.used[c.to]; return used.plus(used).over(c.limit) }
	b.memo.wider = widerNone
	switch {
	case len(b.narrow) == 0:
	case len(b.cut) > 0 || slices.ContainsFunc(all, half):
		b.memo.wider = widerTight
	default:
		b.memo.wider = widerRoomy
	}
}

// widerRoom says how much room the rules of wider hosts have.
type widerRoom int

const (
	widerNone  widerRoom = iota // there are none
	widerTight                  // a route that costs otherwise may change which of them are served
	widerRoomy                  // they have room even if all routes cost twice as much
)

// allows says whether wider rules stay the same when a route changes, and how much
// room they have then at least.
func (w widerRoom) allows(old, next *routeResult) (widerRoom, bool) {
	if w == widerNone || old.plan == nil || next.plan == nil || old.plan.each == next.plan.each && old.plan.clusters == next.plan.clusters {
		return w, w == widerNone || (old.plan == nil) == (next.plan == nil)
	}
	twice := old.plan.each.plus(old.plan.each)
	more := next.plan.each.over(twice) || next.plan.clusters.over(old.plan.clusters.plus(old.plan.clusters))
	return widerTight, w == widerRoomy && !more
}

// reportWider adds the condition NarrowHostname to the reports on routes of hostnames
// for which wider rules have no room.
func (b *build) reportWider() {
	cut := map[routeAt][]narrowHost{}
	b.memo.narrow = map[fleet.RouteRef]bool{}
	for _, n := range b.cut {
		for _, r := range n.routes {
			b.memo.narrow[r.ref] = true
			at := routeAt{r.ref, n.place.gateway}
			cut[at] = append(cut[at], n)
		}
	}
	b.addConditions(func(at routeAt) []condition.Condition {
		found := cut[at]
		if len(found) == 0 {
			return nil
		}
		return []condition.Condition{condition.RouteNarrowHostname(found[0].place.host, found[0].wider[0], len(found)-1)}
	}, len(cut) > 0)
}
