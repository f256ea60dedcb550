package rollout

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// story is one Gateway "infra/shared" with routes in namespace shop, the hub's
// Rollout, and edges that answer as Envoys behind the xDS server do.
//
//	route NAME [path=REGEX] [in=NAMESPACE]  creates the route, or gives it another generation
//	delete NAME                             deletes the route
//	pools NAME...                           sets the EdgePools (at first: us and eu)
//	check PATH                              sets the health check of all clusters
//	certificate TEXT                        sets the certificate of the port 443
//	edge POOL/NODE [refuses=TEXT] [says=TEXT]
//	                                        an edge connects, or from now on refuses what contains TEXT
//	                                        ("~" stands for a space; "nothing" for none); says=quote: it quotes TEXT
//	leave POOL/NODE                         an edge ends
//	reconnect POOL/NODE                     an edge reconnects with what it has
//	pause POOL/NODE, resume POOL/NODE       an edge does not answer for a while
//	pass                                    one pass of the hub: Review, Build, Publish
//	answer                                  the edges answer what they are asked
//	late                                    the same, but the hub knows only after its next pass
//	settle                                  pass and answer, until nothing changes; then what edges have
//	has                                     what edges have of the routes on port 80
//	restart [without records]               another hub process; the edges reconnect
//	show                                    Describe
type story struct {
	t       *testing.T
	rollout *Rollout
	routes  map[fleet.RouteRef]*storyRoute
	stale   map[fleet.ObjectRef]bool // not yet read by the hub
	pools   []lbsync.PoolRef
	secret  string
	check   *model.ClusterPolicy
	created int // objects so far
	streams uint64
	edges   []*storyEdge
}

type storyRoute struct {
	object Object
	path   string
}

// storyEdge is an Envoy with its state in the server.
type storyEdge struct {
	pool, node    string
	since         time.Time // when it connected; for twins
	stream        uint64
	refuses, says string
	paused        bool
	has           map[ResourceID]envoy.Resource
	took          map[ResourceID]uint64 // the snapshot in which
	nacked        map[ResourceID]ResourceNack
	answered      uint64
	asked         int
}

func storyRef(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: name}}
}

var sharedGateway = gatewayRef(fleet.ObjectName{Namespace: "infra", Name: "shared"})

func newStory(t *testing.T) *story {
	s := &story{t: t, routes: map[fleet.RouteRef]*storyRoute{}, pools: []lbsync.PoolRef{{Pool: "eu", Region: "eu"}, {Pool: "us", Region: "us"}}}
	s.restart(nil)
	return s
}

func (s *story) restart(refusals []Refusal) {
	s.rollout, s.stale = New(), map[fleet.ObjectRef]bool{}
	objects := map[fleet.ObjectRef]Object{sharedGateway: {ObjectVersion: ObjectVersion{UID: "gateway", Generation: 7}}}
	for ref, route := range s.routes {
		objects[ref] = route.asObject()
	}
	s.rollout.SetObjects(objects)
	s.rollout.Restore(refusals)
	for _, e := range s.edges {
		s.reconnect(e)
	}
}

func (s *story) reconnect(e *storyEdge) {
	s.streams++
	e.stream, e.answered, e.took, e.nacked = s.streams, 0, map[ResourceID]uint64{}, map[ResourceID]ResourceNack{}
	for id, r := range s.wanted(e) {
		if e.has[id].Version == r.Version {
			e.took[id] = s.rollout.pools[e.pool].snapshot.Generation
		}
	}
}

// wanted is what an edge should have.
func (s *story) wanted(e *storyEdge) map[ResourceID]*envoy.Resource {
	wanted := map[ResourceID]*envoy.Resource{}
	if p := s.rollout.pools[e.pool]; p != nil {
		for _, resources := range []envoy.Resources{p.snapshot.Resources, p.snapshot.Overrides[e.stream]} {
			for r := range resourcesIn(resources) {
				wanted[idOf(r)] = r
			}
		}
	}
	return wanted
}

func (route *storyRoute) asObject() Object {
	o := route.object
	copied := *route
	o.Source = &copied
	return o
}

// build is what gateway.Build makes of the routes, with some replaced.
func (s *story) build(instead map[fleet.RouteRef]any) model.Model {
	web := model.Listener{Gateway: sharedGateway.Name, Port: 80, Protocol: model.HTTP, Chains: []model.Chain{{Name: "web"}}}
	for _, pool := range s.pools {
		web.Addresses = append(web.Addresses, model.Address{Pool: pool.Pool, Address: netip.AddrFrom4([4]byte{198, 18, pool.Pool[0], 1})})
	}
	var m model.Model
	host := model.VirtualHost{Hostname: "*"}
	for _, ref := range slices.SortedFunc(maps.Keys(s.routes), fleet.RouteRef.Compare) {
		route := s.routes[ref]
		if earlier, replaced := instead[ref]; replaced {
			if earlier == nil {
				continue
			}
			route = earlier.(*storyRoute)
		}
		key := ref.Name.String() + "/1"
		host.Rules = append(host.Rules, model.Rule{Origin: model.Origin{Route: ref, Generation: route.object.Generation},
			Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: route.path}}, Forward: &model.Forward{Targets: []model.Target{{Assignment: key, Weight: 1}}}})
		m.Assignments = append(m.Assignments, model.Assignment{Key: key, Route: ref, Protocol: model.HTTP1, Policy: s.check})
	}
	web.Chains[0].Hosts = []model.VirtualHost{host}
	m.Listeners = []model.Listener{web}
	if s.secret != "" {
		tls := web
		tls.Port, tls.Protocol, tls.Chains = 443, model.HTTPS, []model.Chain{{Name: "tls", Secrets: []string{"infra/cert"}, Hosts: []model.VirtualHost{host}}}
		m.Listeners = append(m.Listeners, tls)
		m.Secrets = []model.Secret{{Name: "infra/cert", Certificate: []byte(s.secret), PrivateKey: []byte("key")}}
	}
	return m
}

// progress is what the server says of the edges.
func (s *story) progress() map[string][]EdgeProgress {
	all := map[string][]EdgeProgress{}
	for _, pool := range s.pools {
		all[pool.Pool] = nil
	}
	for _, e := range s.edges {
		g := EdgeProgress{Edge: Edge{Node: e.node, Since: e.since}, Stream: e.stream, Answered: e.answered}
		for _, id := range slices.SortedFunc(maps.Keys(e.nacked), ResourceID.compare) {
			g.Nacked = append(g.Nacked, e.nacked[id])
		}
		all[e.pool] = append(all[e.pool], g)
	}
	return all
}

// pass is one pass of the hub. It gives what is new.
func (s *story) pass() string {
	var out strings.Builder
	for ref := range s.stale {
		if route, exists := s.routes[ref]; exists {
			s.rollout.SetObject(ref, route.asObject())
		} else {
			s.rollout.DeleteObject(ref)
		}
	}
	clear(s.stale)
	reviewed := s.rollout.Review(s.progress())
	for _, j := range reviewed.Judgements {
		fmt.Fprintf(&out, "%s/%s NACKed %s: candidates%s, rejected%s\n", j.Pool, j.Node, j.Nack.Resource, names(j.Candidates), names(j.Rejected))
	}
	for _, f := range reviewed.Refused {
		fmt.Fprintf(&out, "%s refuses %s %s%s: %q\n", f.Pool, f.Ref.Name.Name, f.Version, describeInstead(f.Instead), f.Message)
	}
	var views []model.Model
	for _, view := range reviewed.Views {
		views = append(views, s.build(view.Instead))
	}
	changes := s.rollout.Publish(s.build(nil), views, s.pools)
	for _, pool := range changes.Withdrawn {
		fmt.Fprintf(&out, "%s: withdrawn\n", pool)
	}
	return out.String()
}

func names(refs []fleet.RouteRef) (out string) {
	for _, ref := range refs {
		out += " " + ref.Name.Name
	}
	if out == "" {
		return " none"
	}
	return out
}

// answer has the edges answer all that they are asked, and reports whether any was.
func (s *story) answer(late bool) (asked bool) {
	for _, e := range s.edges {
		p := s.rollout.pools[e.pool]
		if e.paused || p == nil {
			continue
		}
		for id, r := range s.wanted(e) {
			if e.has[id].Version == r.Version || e.nacked[id].Version == r.Version {
				continue
			}
			asked = true
			e.asked++
			if e.refuses != "" && strings.Contains(string(r.Body.GetValue()), e.refuses) {
				e.nacked[id] = ResourceNack{Resource: id, Version: r.Version, Message: e.says, Fresh: e.has[id].Version == "", Has: e.took[id]}
				continue
			}
			e.has[id], e.took[id] = *r, p.snapshot.Generation
			delete(e.nacked, id)
		}
		if late {
			continue
		}
		asked = asked || e.answered != p.snapshot.Generation
		e.answered = p.snapshot.Generation
	}
	return asked
}

func (s *story) settle() (out string) {
	for range 60 {
		said := s.pass()
		out += said
		if !s.answer(false) && said == "" && !s.rollout.HasWork() {
			return out + s.has()
		}
	}
	return out + "does not end\n"
}

var pathIn = regexp.MustCompile(`/([a-z]+)-([0-9]+)`)

// has is what each edge has of the routes on port 80, and how many resources it was asked about.
func (s *story) has() (out string) {
	for _, e := range s.edges {
		out += e.pool + "/" + e.node + " has"
		for _, id := range slices.SortedFunc(maps.Keys(e.has), ResourceID.compare) {
			if id.Type() == "RouteConfiguration" && strings.Contains(id.Name, "/80") {
				for _, path := range pathIn.FindAllStringSubmatch(string(e.has[id].Body.GetValue()), -1) {
					if one := fmt.Sprintf(" %s@%s", path[1], path[2]); !strings.HasSuffix(out, one) { // of one rule there may be several
						out += one
					}
				}
			}
		}
		out += "\n"
	}
	return out
}

// set creates or changes a route.
func (s *story) set(d *datadriven.TestData) {
	namespace := "shop"
	d.MaybeScanArgs(s.t, "in", &namespace)
	ref := storyRef(d.CmdArgs[0].Key)
	ref.Name.Namespace = namespace
	route := s.routes[ref]
	if route == nil {
		s.created++
		route = &storyRoute{object: Object{ObjectVersion: ObjectVersion{UID: types.UID(fmt.Sprintf("uid-%d", s.created))}}}
		s.routes[ref] = route
	}
	route.object = Object{ObjectVersion: ObjectVersion{UID: route.object.UID, Generation: route.object.Generation + 1}}
	suffix := ""
	d.MaybeScanArgs(s.t, "path", &suffix)
	route.path = fmt.Sprintf("/%s-%d%s", ref.Name.Name, route.object.Generation, suffix)
	s.stale[ref] = true
}

func (s *story) find(d *datadriven.TestData) *storyEdge {
	pool, node, _ := strings.Cut(d.CmdArgs[0].Key, "/")
	for _, e := range s.edges {
		if e.pool == pool && e.node == node {
			return e
		}
	}
	e := &storyEdge{pool: pool, node: node, has: map[ResourceID]envoy.Resource{}, says: "no"}
	s.reconnect(e)
	s.edges = append(s.edges, e)
	return e
}

func (s *story) setEdge(d *datadriven.TestData) {
	e := s.find(d)
	d.MaybeScanArgs(s.t, "refuses", &e.refuses)
	d.MaybeScanArgs(s.t, "says", &e.says)
	if e.refuses == "nothing" {
		e.refuses = ""
	}
	e.says = strings.ReplaceAll(e.says, "~", " ")
}

// run runs one command and then those in the lines below it.
func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	s.t = t
	out := s.command(d)
	if strings.TrimSpace(d.Input) == "" {
		return out
	}
	line, rest, _ := strings.Cut(d.Input, "\n")
	cmd, args, err := datadriven.ParseLine(line)
	if err != nil {
		d.Fatalf(t, "%s: %v", line, err)
	}
	return out + s.run(t, &datadriven.TestData{Pos: d.Pos, Cmd: cmd, CmdArgs: args, Input: rest})
}

func (s *story) command(d *datadriven.TestData) string {
	switch d.Cmd {
	case "route":
		s.set(d)
	case "delete":
		delete(s.routes, storyRef(d.CmdArgs[0].Key))
		s.stale[storyRef(d.CmdArgs[0].Key)] = true
	case "accepted": // the statuses say so
		for ref, route := range s.routes {
			route.object.Accepted = true
			s.stale[ref] = true
		}
	case "pools":
		s.pools = nil
		for _, arg := range d.CmdArgs {
			s.pools = append(s.pools, lbsync.PoolRef{Pool: arg.Key, Region: arg.Key})
		}
	case "certificate":
		s.secret = d.CmdArgs[0].Key
	case "check":
		s.check = &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: time.Second, Timeout: time.Second, Path: d.CmdArgs[0].Key}}
	case "pass":
		return s.pass()
	case "answer", "late":
		s.answer(d.Cmd == "late")
	case "settle":
		return s.settle()
	case "has":
		return s.has()
	case "restart":
		refusals := s.rollout.Records()
		if len(d.CmdArgs) > 0 {
			refusals = nil
		}
		s.restart(refusals)
	case "show":
		return s.rollout.Describe()
	default:
		s.moveEdge(d)
	}
	return ""
}

func (s *story) moveEdge(d *datadriven.TestData) {
	switch e := s.find(d); d.Cmd {
	case "edge":
		s.setEdge(d)
	case "leave":
		s.edges = slices.DeleteFunc(s.edges, func(other *storyEdge) bool { return other == e })
	case "reconnect":
		s.reconnect(e)
	case "pause", "resume":
		e.paused = d.Cmd == "pause"
	default:
		d.Fatalf(s.t, "unknown command %s", d.Cmd)
	}
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Base(filepath.Dir(path)) == "replicas" {
			w := newTwins(t)
			datadriven.RunTest(t, path, w.run)
			return
		}
		s := newStory(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}
