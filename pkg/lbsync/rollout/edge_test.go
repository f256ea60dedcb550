package rollout

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

func (s *story) addRoute(ref fleet.RouteRef, path string) {
	s.routes[ref] = &storyRoute{path: path, object: Object{ObjectVersion: ObjectVersion{UID: types.UID(ref.Name.Name), Generation: 1}}}
	s.stale[ref] = true
}

func (s *story) addEdge(pool, node, refuses, says string) *storyEdge {
	e := &storyEdge{pool: pool, node: node, refuses: refuses, says: says, has: map[ResourceID]envoy.Resource{}}
	s.reconnect(e)
	s.edges = append(s.edges, e)
	return e
}

// From six routes that come at once exactly those at fault are left out in the
// end, whichever they are, although the edge gives no reason.
func TestBisect(t *testing.T) {
	letters := []string{"a", "b", "c", "d", "e", "f"}
	for atFault := range 1 << len(letters) {
		var want []string
		s := newStory(t)
		s.addEdge("us", "strict", "bad", "no")
		s.settle()
		for i, name := range letters {
			path := "/good"
			if atFault&(1<<i) != 0 {
				want, path = append(want, name), "/bad"
			}
			s.addRoute(storyRef(name), path+name)
		}
		log := s.settle()
		var got []string
		for _, f := range s.rollout.Refusals() {
			got = append(got, f.Ref.Name.Name)
		}
		if !slices.Equal(got, want) || strings.Contains(log, "does not end") {
			t.Fatalf("left out %v, want %v\n%s", got, want, log)
		}
	}
}

// Edges that all refuse something else cost the hub a bounded number of Views.
// Those beyond keep what they have, and blame nobody else for it.
func TestManyDifferentEdges(t *testing.T) {
	s := newStory(t)
	honest := s.addEdge("us", "honest", "", "")
	for i := range 10 {
		s.addEdge("us", fmt.Sprint("hostile", i), fmt.Sprintf("/r%c-1", 'a'+i), fmt.Sprintf("/r%c-1", 'a'+i))
		s.addRoute(storyRef(fmt.Sprintf("r%c", 'a'+i)), fmt.Sprintf("/r%c-1", 'a'+i))
	}
	s.addRoute(storyRef("innocent"), "/innocent-1")
	log := s.settle()
	if n := len(s.rollout.views); n != maxViews || strings.Contains(log, "does not end") {
		t.Errorf("%d Views for one pool\n%s", n, log)
	}
	s.routes[storyRef("innocent")].object.Generation, s.routes[storyRef("innocent")].path, s.stale[storyRef("innocent")] = 2, "/innocent-2", true
	if log := s.settle(); strings.Contains(log, "candidates innocent") || !strings.Contains(log, "honest has innocent@2 ra@1") || strings.Count(log, "innocent@2") != maxViews+1 {
		t.Errorf("after a change of an innocent route\n%s", log)
	}
	if len(s.rollout.Refusals()) != 0 || len(honest.nacked) != 0 {
		t.Error("the pool refuses what its honest edge takes")
	}
}

// A TCP route is part of its listener: a NACK of the listener is about the route.
func TestNackOfATCPRoute(t *testing.T) {
	r := New()
	route := fleet.RouteRef{Kind: "TCPRoute", Name: storyRef("a").Name}
	pools := []lbsync.PoolRef{{Pool: "us"}}
	of := func(generation int64) model.Model {
		return model.Model{Listeners: []model.Listener{{Gateway: sharedGateway.Name, Port: 5432, Protocol: model.TCP,
			Addresses: []model.Address{{Pool: "us", Address: netip.MustParseAddr("198.18.1.1")}},
			Chains: []model.Chain{{Name: "tcp", TCP: &model.L4Forward{Origin: model.Origin{Route: route},
				Targets: []model.L4Target{{Assignment: fmt.Sprint("a/", generation), Weight: 1}}}}}}}}
	}
	r.SetObject(sharedGateway, Object{ObjectVersion: ObjectVersion{UID: "g", Generation: 1}})
	r.SetObject(route, Object{ObjectVersion: ObjectVersion{UID: "a", Generation: 1}, Source: int64(1)})
	r.Publish(of(1), nil, pools)
	r.Review(map[string][]EdgeProgress{"us": {{Stream: 1, Answered: 1}}})
	before := r.pools["us"].snapshot.Resources.Listeners[0]
	r.SetObject(route, Object{ObjectVersion: ObjectVersion{UID: "a", Generation: 2}, Source: int64(2)})
	listener := r.Publish(of(2), nil, pools).Snapshots[0].Resources.Listeners[0]
	reviewed := r.Review(map[string][]EdgeProgress{"us": {{Stream: 1, Answered: 2, Nacked: []ResourceNack{{Resource: idOf(&listener), Version: listener.Version, Message: "no"}}}}})
	if len(reviewed.Refused) != 1 || reviewed.Refused[0].Ref != route || len(reviewed.Views) != 1 || reviewed.Views[0].Instead[route] != int64(1) {
		t.Fatalf("reviewed %+v", reviewed)
	}
	override := r.Publish(of(2), []model.Model{of(1)}, pools).Snapshots[0].Overrides[1]
	if len(override.Listeners) != 1 || override.Listeners[0].Version != before.Version {
		t.Errorf("instead it gets %+v, want %s", override, before.Version)
	}
}

// Both generations of a route have their clusters, if these differ.
func TestClustersOfBothGenerations(t *testing.T) {
	s := newStory(t)
	s.addEdge("us", "strict", "", "no")
	s.addRoute(storyRef("a"), "/a-1")
	s.settle()
	base, earlier := s.build(nil), s.build(nil)
	earlier.Assignments[0].Key = "shop/a/other"
	all := union(base.Assignments, []model.Model{base, earlier})
	if len(all) != 2 || all[0].Key != "shop/a/1" || all[1].Key != "shop/a/other" || len(base.Assignments) != 1 {
		t.Errorf("all assignments %+v", all)
	}
	if same := union(base.Assignments, []model.Model{base}); !model.SameSlice(same, base.Assignments) {
		t.Error("a list that is complete is copied")
	}
}

// Only long values that a route's author wrote count as quotations.
func TestQuotations(t *testing.T) {
	var routes []fleet.RouteRef
	host := func(name string, rule model.Rule) model.VirtualHost {
		rule.Origin.Route = storyRef(name)
		routes = append(routes, rule.Origin.Route)
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
	got := quotedIn(m, routes, "bad: /(foo|bar) /prefix ^canary not-a-regex .* request-value response-value")
	for name, want := range map[string]bool{"path": true, "prefix": false, "header": true, "exact": false, "short": false, "set": true, "add": true} {
		if slices.Contains(got, storyRef(name)) != want {
			t.Errorf("the message quotes %s: %t, want %t", name, !want, want)
		}
	}
	if got := quotedIn(m, routes[:1], "^canary"); len(got) != 0 {
		t.Errorf("a route that did not change is quoted: %v", got)
	}
}

// A route's owner reads Envoy's message only if it is about his namespace alone.
func TestWordsAreNotForOthers(t *testing.T) {
	other := fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "bank", Name: "a"}}
	for _, test := range []struct {
		name, says, want string
		neighbour        fleet.RouteRef
	}{
		{"all routes are of one namespace", "the whole configuration", "the whole configuration", storyRef("c")},
		{"another namespace's route is in the resource", "no", "", other},
		{"but the message quotes this one alone", "bad '/bad-b2'", "bad '/bad-b2'", other},
		{"both are quoted", "bad '/bad-b2' after '/secret-1'", "", other},
		{"the message may be the whole configuration", "bad '/bad-b2'" + strings.Repeat(" virtual_hosts", 40), "", other},
	} {
		s := newStory(t)
		s.addEdge("us", "strict", "bad", test.says)
		s.addRoute(test.neighbour, "/secret-1")
		s.settle()
		s.addRoute(storyRef("b"), "/bad-b2")
		log := s.settle()
		if f := s.rollout.Refusals(); len(f) != 1 || f[0].Message != test.want {
			t.Errorf("%s: %+v\n%s", test.name, f, log)
		}
	}
}
