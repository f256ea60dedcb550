package reconciler

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

func shop(name string) fleet.ObjectName { return fleet.ObjectName{Namespace: "shop", Name: name} }

func routeObject(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: condition.HTTPRoute, Name: shop(name)}
}

// made writes origins as "a:1 b:2".
func made(text string) origins {
	from := origins{}
	for _, field := range strings.Fields(text) {
		name, generation, _ := strings.Cut(field, ":")
		from[routeObject(name)] = int64(generation[0] - '0')
	}
	return from
}

var table = resourceID{typeRoute, "infra/shared/80"}

// A script of what is published, ACKed and known, and then who is suspected of
// a NACK.
func TestSuspects(t *testing.T) {
	regexes := func(route fleet.RouteRef) []string { return []string{"^/" + route.Name.Name + "(x|y)+$"} }
	for _, story := range []struct {
		name   string
		script string // one step a line
		known  string
		nack   string // version, then Envoy's words
		want   string
	}{
		{"only the route that changed since the last ACK",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2", "", "v2 bad regex", "b"},
		{"a new route, too", "publish v1 a:1\nack v1\npublish v2 a:1 c:1", "", "v2 bad regex", "c"},
		{"two changed before one answer: both, the words name none",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:2 b:1\npublish v3 a:2 b:2", "", "v3 bad regex", "a b"},
		{"two changed, and the words name one",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:2 b:2", "", "v2 regex '^/b(x|y)+$' is too big", "b"},
		{"another edge has just taken what this one refuses",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\nack v2", "", "v2 bad regex", "b"},
		{"and even a version after it", "publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\nack v2\npublish v3 a:2 b:2\nack v3", "", "v2 bad", "b"},
		{"the hub has just started: edges brought v1 with them", "ack v1\npublish v1 a:1 b:1\npublish v2 a:1 b:2", "", "v2 bad", "b"},
		{"the hub has just started, b changed meanwhile: a was accepted before", "publish v1 a:1 b:2", "a:1 b:1", "v1 bad", "b"},
		{"nobody's change did it: nobody is left out", "publish v1 a:1\nack v1\npublish v2 a:1", "", "v2 bad", ""},
		{"nobody's change did it, but the words name a value", "publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:1", "", "v2 no ^/a(x|y)+$", "a"},
		{"a broken route that was repaired is broken again", "publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\npublish v3 a:1\nack v3\npublish v2 a:1 b:2", "", "v2 bad", "b"},
		{"a route that is gone stays a suspect, and makes nobody else the only one", "publish v1 b:1 c:1\nack v1\npublish v2 b:2 c:2\ngone b", "", "v2 bad", "b c"},
		{"the next one of its name is new", "publish v1 b:1\nack v1\ngone b\npublish v2 b:1", "", "v2 bad", "b"},
		{"an answer about what nobody published says nothing", "publish v1 a:1", "", "v0 bad", ""},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := newLedger()
			for step := range strings.Lines(story.script) {
				verb, rest, _ := strings.Cut(strings.TrimSpace(step), " ")
				version, from, _ := strings.Cut(rest, " ")
				switch verb {
				case "publish":
					l.publish(table, version, func() origins { return made(from) })
				case "ack":
					l.ack(table, version)
				case "gone":
					l.outlive(sets.New(routeObject(version)))
				}
			}
			version, message, _ := strings.Cut(story.nack, " ")
			suspects, _ := l.suspects(refusal{table, version, message}, made(story.known), regexes)
			var names []string
			for _, o := range suspects {
				names = append(names, o.Name.Name)
			}
			if got := strings.Join(names, " "); got != story.want {
				t.Errorf("suspects %q, want %q", got, story.want)
			}
		})
	}
}

// What waits for answers is bounded, also for edges that never answer.
func TestLedgerIsBounded(t *testing.T) {
	l := newLedger()
	for i := range 1000 {
		l.publish(table, strings.Repeat("v", i+1), func() origins { return nil })
	}
	if n := len(l.made[table]); n > remembered {
		t.Errorf("%d versions remembered", n)
	}
	l.withdraw(map[resourceID]bool{})
	if len(l.made) != 0 {
		t.Error("a withdrawn resource is remembered")
	}
}

// site is a Model of one Gateway with an HTTP port of two hosts and an HTTPS port.
func site() *model.Model {
	rule := func(name string, generation int64) model.Rule {
		return model.Rule{Origin: model.Origin{Route: routeObject(name), Generation: generation},
			Forward: &model.Forward{Targets: []model.Target{{Assignment: "shop/" + name + "/5678"}}}}
	}
	gateway := fleet.ObjectName{Namespace: "infra", Name: "shared"}
	return &model.Model{
		Listeners: []model.Listener{
			{Gateway: gateway, Port: 80, Protocol: model.HTTP, Chains: []model.Chain{{Name: "web", Hosts: []model.VirtualHost{
				{Hostname: "a.example.com", Rules: []model.Rule{rule("a", 1), rule("both", 3)}},
				{Hostname: "b.example.com", Rules: []model.Rule{rule("b", 2), rule("both", 3)}},
			}}}},
			{Gateway: gateway, Port: 443, Protocol: model.HTTPS, Chains: []model.Chain{{Name: "tls", Secrets: []string{"infra/cert"}, Hosts: []model.VirtualHost{
				{Hostname: "s.example.com", Rules: []model.Rule{rule("s", 1)}},
			}}}},
		},
		Assignments: []model.Assignment{{Key: "shop/a/1234", Route: routeObject("a")}, {Key: "shop/b/5678", Route: routeObject("b")}},
	}
}

// Names of resources lead to the objects that they are made of.
func TestOriginsOf(t *testing.T) {
	gateway := gatewayRef(fleet.ObjectName{Namespace: "infra", Name: "shared"})
	now := generations{gateway: 7, routeObject("a"): 1, routeObject("b"): 2}
	for _, story := range []struct {
		id   resourceID
		want origins
	}{
		{resourceID{typeListener, "infra/shared/80"}, origins{gateway: 7}},
		{resourceID{typeRoute, "infra/shared/80"}, made("a:1 b:2 both:3")},
		{resourceID{typeRoute, "infra/shared/80/b.example.com"}, made("b:2 both:3")},
		{resourceID{typeScope, "infra/shared/443/tls/s.example.com"}, made("s:1")},
		{resourceID{typeRoute, "infra/shared/443/tls"}, made("s:1")},
		{resourceID{typeRoute, "infra/shared/8080"}, origins{}}, // not a part of port 80
		{resourceID{typeCluster, "shop/b/5678"}, made("b:2")},
		{resourceID{typeCluster, "shop/c/0000"}, origins{}},
		{resourceID{typeSecret, "infra/cert"}, origins{gateway: 7}},
	} {
		got := originsOf(story.id, site(), now)
		if len(got) != len(story.want) {
			t.Errorf("%s: %v, want %v", story.id.name, got, story.want)
		}
		for o, generation := range story.want {
			if got[o] != generation {
				t.Errorf("%s: %v, want %v", story.id.name, got, story.want)
			}
		}
	}
}

// A NACK counts at one generation of its route only; the first edge's words
// stay; and a status remembers it for a hub that has just started.
func TestNacks(t *testing.T) {
	now := generations{routeObject("a"): 1, routeObject("b"): 2, gatewayRef(fleet.ObjectName{Namespace: "infra", Name: "shared"}): 7}
	l := newLedger()
	l.publish(table, "v1", func() origins { return made("a:1") })
	l.ack(table, "v1")
	l.publish(table, "v2", func() origins { return made("a:1 b:2") })
	r := newRefusals()
	say := func() string {
		var lines []string
		for _, n := range r.nacks(nil, site(), now) {
			lines = append(lines, string(n.Ref.Kind)+" "+n.Ref.Name.Name+": "+n.Message)
		}
		return strings.Join(lines, ", ")
	}
	r.blame(refusal{table, "v2", "first edge"}, l, site(), nil, now)
	r.blame(refusal{table, "v2", "second edge"}, l, site(), nil, now)
	if got := say(); got != "HTTPRoute b: first edge" {
		t.Errorf("after two NACKs: %q", got)
	}
	now[routeObject("b")] = 3
	if got := say(); got != "" {
		t.Errorf("after b changed: %q", got)
	}

	// No route changed: the Gateway says it, until the resource changes.
	certificate := resourceID{typeSecret, "infra/cert"}
	l.publish(certificate, "c1", func() origins { return nil })
	r.blame(refusal{certificate, "c1", "no key"}, l, site(), nil, now)
	if got := say(); got != "Gateway shared: no key" {
		t.Errorf("after a refused certificate: %q", got)
	}
	l.publish(certificate, "c2", func() origins { return nil })
	r.forget(func(_ resourceID, version string) bool { return version == "c2" })
	if got := say(); got != "" {
		t.Errorf("after the certificate changed: %q", got)
	}

	// Nor did the route of a cluster that its BackendPolicy changed.
	cluster := resourceID{typeCluster, "shop/b/5678"}
	l.publish(cluster, "c1", func() origins { return made("b:3") })
	l.ack(cluster, "c1")
	l.publish(cluster, "c2", func() origins { return made("b:3") })
	r.blame(refusal{cluster, "c2", "no such check"}, l, site(), nil, now)
	if got := say(); got != "Gateway shared: no such check" {
		t.Errorf("after a refused cluster: %q", got)
	}
}

// A Gateway in two pools has a listener of one name and two addresses. What the
// edges of one pool refuse is told whichever pool was published last.
func TestNackOfOnePool(t *testing.T) {
	gateway := fleet.ObjectName{Namespace: "infra", Name: "shared"}
	now := generations{gatewayRef(gateway): 7}
	m := model.Model{Listeners: []model.Listener{{Gateway: gateway, Port: 80, Protocol: model.HTTP,
		Chains: []model.Chain{{Name: "web", Hosts: []model.VirtualHost{{Hostname: "*"}}}},
		Addresses: []model.Address{
			{Pool: "eu", Address: netip.MustParseAddr("198.18.2.1")}, {Pool: "us", Address: netip.MustParseAddr("198.18.1.1")},
		}}}}
	o := outlet{publisher: silent{}, assigner: silent{}, translation: newTranslation(), ledger: newLedger()}
	places := []lbsync.PoolRef{{Pool: "eu", Region: "eu"}, {Pool: "us", Region: "us"}}
	o.publish(m, places, now)
	for _, place := range places {
		r := newRefusals()
		listener := o.pools[place.Pool].resources.Listeners[0]
		r.blame(refusal{resourceID{listener.TypeURL, listener.Name}, listener.Version, "address in use"}, o.ledger, &o.model, nil, now)
		r.forget(o.serves)
		if nacks := r.nacks(nil, &o.model, now); len(nacks) != 1 || nacks[0].Ref.Name != gateway {
			t.Errorf("refused in %s: %+v", place.Pool, nacks)
		}
		moved := m
		moved.Listeners = nil
		o.publish(moved, places, now)
		r.forget(o.serves)
		if nacks := r.nacks(nil, &o.model, now); len(nacks) != 0 {
			t.Errorf("no longer there in %s: %+v", place.Pool, nacks)
		}
		o.publish(m, places, now)
	}
}

// silent takes everything and says nothing.
type silent struct{}

func (silent) Publish(string, uint64, envoy.Resources)                 {}
func (silent) Progress(string) []EdgeProgress                          { return nil }
func (silent) Withdraw(string)                                         {}
func (silent) SetAssignments([]model.Assignment, []model.ImportPolicy) {}

// The status of a route is the memory of a NACK that outlives the hub.
func TestNackFromStatus(t *testing.T) {
	route := acceptedRoute("b", 2, condition.RouteRefusedByEdge("regex too big"))
	r := newRefusals()
	now := generations{routeObject("b"): 2}
	nacks := r.nacks(refusedOf([]*gateway.Route{gateway.FromHTTPRoute(&route)}), site(), now)
	if len(nacks) != 1 || nacks[0].Message != "regex too big" || nacks[0].Ref.Generation != 2 {
		t.Errorf("nacks %+v", nacks)
	}
	route.Generation, now[routeObject("b")] = 3, 3
	if nacks := r.nacks(refusedOf([]*gateway.Route{gateway.FromHTTPRoute(&route)}), site(), now); len(nacks) != 0 {
		t.Errorf("nacks of an older generation: %+v", nacks)
	}
}

// Only long values that a route's author wrote are looked for in Envoy's words.
func TestHints(t *testing.T) {
	m := site()
	m.Listeners[0].Chains[0].Hosts[0].Rules[0].Match = model.Match{
		Path:    model.PathMatch{Kind: model.PathRegex, Value: "/(foo|bar)"},
		Headers: []model.ValueMatch{{Name: "env", Value: "^canary", Regex: true}, {Name: "x", Value: "not-a-regex"}},
		Query:   []model.ValueMatch{{Name: "q", Value: ".*", Regex: true}},
	}
	if got := strings.Join(hints(m, routeObject("a")), " "); got != "/(foo|bar) ^canary" {
		t.Errorf("hints %q", got)
	}
}

// jury plays routes that come at once against an edge that refuses what has a
// guilty one in it and gives no reason, and gives who is left out in the end.
func jury(t *testing.T, routes, guilty []string) string {
	l, r, now := newLedger(), newRefusals(), generations{}
	for _, name := range routes {
		now[routeObject(name)] = 1
	}
	l.publish(table, "empty", func() origins { return nil })
	l.ack(table, "empty")
	has, refused := "empty", map[string]bool{} // the edge's, which is not sent what it has or refused
	leftOut := func() (out string) {
		for _, n := range r.nacks(nil, &model.Model{}, now) {
			out += " " + n.Ref.Name.Name
		}
		return out
	}
	for range 60 {
		out := leftOut()
		version, from := "", origins{}
		for _, name := range routes {
			if !strings.Contains(out, name) {
				version += name
				from[routeObject(name)] = 1
			}
		}
		if version == "" {
			version = "empty"
		}
		l.publish(table, version, func() origins { return from })
		switch bad := slices.ContainsFunc(guilty, func(name string) bool { return strings.Contains(version, name) }); {
		case bad && !refused[version]:
			refused[version] = true
			r.blame(refusal{table, version, "no"}, l, &model.Model{}, nil, now)
		case !bad && version != has:
			has = version
			l.ack(table, version)
		}
		for _, n := range l.repeated() {
			r.blame(n, l, &model.Model{}, nil, now)
		}
		r.retry(l)
		if len(r.trials) == 0 && has == version && leftOut() == out {
			return strings.TrimSpace(out)
		}
	}
	t.Errorf("%v of %v are not found", guilty, routes)
	return ""
}

// Of routes that changed at once the innocent are let in again, and only they.
func TestJury(t *testing.T) {
	routes := []string{"a", "b", "c", "d", "e", "f"}
	for guilty := range 1 << len(routes) {
		var names []string
		for i, name := range routes {
			if guilty&(1<<i) != 0 {
				names = append(names, name)
			}
		}
		if got, want := jury(t, routes, names), strings.Join(names, " "); got != want {
			t.Errorf("left out %q, want %q", got, want)
		}
	}
}

// A version that was on its way when the guilty route was found says nothing
// about its neighbour that changed after.
func TestExplained(t *testing.T) {
	now := generations{routeObject("a"): 2, routeObject("b"): 2}
	l, r := newLedger(), newRefusals()
	l.publish(table, "v1", func() origins { return made("a:1 b:1") })
	l.ack(table, "v1")
	l.publish(table, "v2", func() origins { return made("a:1 b:2") })
	l.publish(table, "v3", func() origins { return made("a:2 b:2") })
	r.blame(refusal{table, "v2", "no"}, l, site(), nil, now)
	r.blame(refusal{table, "v3", "no"}, l, site(), nil, now)
	if nacks := r.nacks(nil, site(), now); len(nacks) != 1 || nacks[0].Ref.Name != shop("b") {
		t.Errorf("nacks %+v", nacks)
	}
}
