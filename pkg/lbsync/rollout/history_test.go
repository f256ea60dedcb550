package rollout

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

const (
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	secretType   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

var table = ResourceID{routeType, "infra/shared/80"}

// versionsOf reads routes like "a:1 b:2"; "b:1:new" is b with another UID.
func versionsOf(text string) routeVersions {
	routes := routeVersions{}
	for _, field := range strings.Fields(text) {
		parts := strings.Split(field, ":")
		routes[storyRef(parts[0])] = ObjectVersion{UID: types.UID(strings.Join(parts[2:], "")), Generation: int64(parts[1][0] - '0')}
	}
	return routes
}

// publishTable publishes a version of the table, made of these routes.
func publishTable(h history, version string, routes routeVersions) {
	resource := envoy.Resource{TypeURL: table.TypeURL, Name: table.Name, Version: version, Sources: []fleet.ObjectRef{sharedGateway}}
	for ref := range routes {
		resource.Sources = append(resource.Sources, ref)
	}
	h.publish(&resource, routes)
}

// A script of what is published and ACKed, and the candidates of a NACK.
func TestCandidates(t *testing.T) {
	quoted := func(message string) map[fleet.RouteRef]bool {
		routes := map[fleet.RouteRef]bool{}
		for _, name := range []string{"a", "b", "c"} {
			routes[storyRef(name)] = strings.Contains(message, "^/"+name+"(x|y)+$")
		}
		return routes
	}
	for _, test := range []struct {
		name                string
		script              string // one step a line
		acceptedBeforeStart string
		nack                string // version, then Envoy's message
		want                string
		definite            bool
	}{
		{"only the route that changed since the last ACK",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2", "", "v2 bad regex", "b", true},
		{"a new route, too", "publish v1 a:1\nack v1\npublish v2 a:1 c:1", "", "v2 bad regex", "c", true},
		{"two changed before one answer: both, the message quotes none",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:2 b:1\npublish v3 a:2 b:2", "", "v3 bad regex", "a b", false},
		{"two changed, and the message quotes one",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:2 b:2", "", "v2 regex '^/b(x|y)+$' is too big", "b", true},
		{"another edge has just ACKed what this one NACKs",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\nack v2", "", "v2 bad regex", "b", true},
		{"and even a version after it", "publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\nack v2\npublish v3 a:2 b:2\nack v3", "", "v2 bad", "b", true},
		{"the hub has just started: edges brought v1 with them", "ack v1\npublish v1 a:1 b:1\npublish v2 a:1 b:2", "", "v2 bad", "b", true},
		{"the hub has just started, b changed meanwhile: a was accepted before", "publish v1 a:1 b:2", "a:1 b:1", "v1 bad", "b", true},
		{"the hub has just started, b was deleted and recreated meanwhile", "publish v1 a:1 b:1:new", "a:1 b:1", "v1 bad", "b", true},
		{"no route changed: no candidate", "publish v1 a:1\nack v1\npublish v2 a:1", "", "v2 bad", "", false},
		{"no route changed, but the message quotes a value", "publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:1", "", "v2 no ^/a(x|y)+$", "a", true},
		{"a broken route that was repaired is broken again",
			"publish v1 a:1 b:1\nack v1\npublish v2 a:1 b:2\npublish v3 a:1\nack v3\npublish v2 a:1 b:2", "", "v2 bad", "b", true},
		{"the next route of a name is new", "publish v1 b:1\nack v1\npublish v2 b:1:new", "", "v2 bad", "b", true},
		{"a version that was never published", "publish v1 a:1", "", "v0 bad", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory()
			for step := range strings.Lines(test.script) {
				verb, rest, _ := strings.Cut(strings.TrimSpace(step), " ")
				version, routes, _ := strings.Cut(rest, " ")
				if verb == "ack" {
					h.ack(table, version)
				} else {
					publishTable(h, version, versionsOf(routes))
				}
			}
			version, message, _ := strings.Cut(test.nack, " ")
			candidates, definite := h.candidates(Nack{table, version, message}, versionsOf(test.acceptedBeforeStart), quoted)
			var names []string
			for _, ref := range candidates {
				names = append(names, ref.Name.Name)
			}
			if got := strings.Join(names, " "); got != test.want || definite != test.definite {
				t.Errorf("candidates %q, definite %t, want %q, %t", got, definite, test.want, test.definite)
			}
		})
	}
}

// The versions that wait for answers are bounded, also if edges never answer.
func TestHistoryIsBounded(t *testing.T) {
	h := newHistory()
	for i := range 1000 {
		version := strings.Repeat("v", i+1)
		publishTable(h, version, nil)
		h.nack(Nack{table, version, "no"})
	}
	if versions, nacks := len(h.versions[table]), len(h.nacked[table]); versions > maxVersions || nacks > maxVersions {
		t.Errorf("%d versions and %d NACKs are kept", versions, nacks)
	}
	h.keepOnly(map[ResourceID]bool{})
	if len(h.versions)+len(h.nacked)+len(h.reported) != 0 {
		t.Error("a withdrawn resource is kept")
	}
}

// Only long values that a route's author wrote count as quotations.
func TestQuotedRoutes(t *testing.T) {
	host := func(name string, rule model.Rule) model.VirtualHost {
		rule.Origin.Route = storyRef(name)
		return model.VirtualHost{Hostname: name, Rules: []model.Rule{rule}}
	}
	m := &model.Model{Listeners: []model.Listener{{Chains: []model.Chain{{Hosts: []model.VirtualHost{
		host("path", model.Rule{Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: "/(foo|bar)"}}}),
		host("prefix", model.Rule{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/prefix"}}}),
		host("header", model.Rule{Match: model.Match{Headers: []model.ValueMatch{{Name: "env", Value: "^canary", Regex: true}}}}),
		host("exact", model.Rule{Match: model.Match{Headers: []model.ValueMatch{{Name: "x", Value: "not-a-regex"}}}}),
		host("short", model.Rule{Match: model.Match{Query: []model.ValueMatch{{Name: "q", Value: ".*", Regex: true}}}}),
		host("set", model.Rule{Request: model.HeaderChanges{Set: []model.Header{{Name: "x", Value: "request-value"}}}}),
		host("add", model.Rule{Response: model.HeaderChanges{Add: []model.Header{{Name: "x", Value: "response-value"}}}}),
	}}}}}}
	got := quotedRoutes(m, "bad: /(foo|bar) /prefix ^canary not-a-regex .* request-value response-value")
	for name, want := range map[string]bool{"path": true, "prefix": false, "header": true, "exact": false, "short": false, "set": true, "add": true} {
		if got[storyRef(name)] != want {
			t.Errorf("the message quotes %s: %t, want %t", name, got[storyRef(name)], want)
		}
	}
}

// A Gateway in two pools has a listener of one name and two addresses, so two
// versions. A NACK in one pool counts whichever pool was published last.
func TestNackInOnePool(t *testing.T) {
	r := New()
	r.SetObject(sharedGateway, Object{ObjectVersion: ObjectVersion{UID: "g", Generation: 7}})
	m := model.Model{Listeners: []model.Listener{{Gateway: sharedGateway.Name, Port: 80, Protocol: model.HTTP,
		Chains: []model.Chain{{Name: "web", Hosts: []model.VirtualHost{{Hostname: "*"}}}},
		Addresses: []model.Address{
			{Pool: "eu", Address: netip.MustParseAddr("198.18.2.1")}, {Pool: "us", Address: netip.MustParseAddr("198.18.1.1")},
		}}}}
	pools := []lbsync.PoolRef{{Pool: "eu", Region: "eu"}, {Pool: "us", Region: "us"}}
	r.Publish(m, pools)
	for _, pool := range pools {
		listener := r.pools[pool.Pool].Resources.Listeners[0]
		r.Nack(Nack{idOf(&listener), listener.Version, "address in use"})
		if rejections := r.Review(); len(rejections) != 1 || rejections[0].Ref != sharedGateway {
			t.Errorf("NACKed in %s: %+v", pool.Pool, rejections)
		}
		r.Publish(model.Model{}, pools)
		if rejections := r.Review(); len(rejections) != 0 {
			t.Errorf("no longer there in %s: %+v", pool.Pool, rejections)
		}
		r.Publish(m, pools)
	}
}

// A TCP route is part of its listener: a NACK of the listener rejects the route.
func TestNackOfATCPRoute(t *testing.T) {
	r := New()
	r.SetObject(sharedGateway, Object{ObjectVersion: ObjectVersion{UID: "g", Generation: 1}})
	route := fleet.RouteRef{Kind: "TCPRoute", Name: storyRef("a").Name}
	for generation := range int64(2) {
		r.SetObject(route, Object{ObjectVersion: ObjectVersion{UID: "a", Generation: generation + 1}})
		changes := r.Publish(model.Model{Listeners: []model.Listener{{Gateway: sharedGateway.Name, Port: 5432, Protocol: model.TCP,
			Addresses: []model.Address{{Pool: "us", Address: netip.MustParseAddr("198.18.1.1")}},
			Chains: []model.Chain{{Name: "tcp", TCP: &model.L4Forward{Origin: model.Origin{Route: route},
				Targets: []model.L4Target{{Assignment: string('a' + rune(generation)), Weight: 1}}}}}}}}, []lbsync.PoolRef{{Pool: "us"}})
		listener := changes.Snapshots[0].Resources.Listeners[0]
		if generation == 0 {
			r.Ack(idOf(&listener), listener.Version)
			continue
		}
		rejected := r.Nack(Nack{idOf(&listener), listener.Version, "no"}).Rejected
		if len(rejected) != 1 || rejected[0].Ref != route || rejected[0].Generation != 2 {
			t.Errorf("rejected %+v", rejected)
		}
	}
}

// From six routes that come at once exactly those at fault are left out in the
// end, whichever they are, although the edge gives no reason.
func TestBisect(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	for atFault := range 1 << len(names) {
		var want []string
		s := newStory(t)
		s.publish()
		s.answer("bad", map[string]bool{})
		for i, name := range names {
			path := "/good"
			if atFault&(1<<i) != 0 {
				want, path = append(want, name), "/bad"
			}
			s.routes[storyRef(name)] = &storyRoute{host: "*", path: path + name, object: Object{ObjectVersion: ObjectVersion{UID: types.UID(name), Generation: 1}}}
			s.stale[storyRef(name)] = true
		}
		log := s.publish() + s.edges("bad")
		var got []string
		for _, rejection := range s.rollout.Review() {
			got = append(got, rejection.Ref.Name.Name)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || strings.Contains(log, "does not end") {
			t.Fatalf("left out %v, want %v\n%s", got, want, log)
		}
	}
}
