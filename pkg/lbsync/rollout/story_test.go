package rollout

import (
	"fmt"
	"maps"
	"net/netip"
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
// Rollout, and what the test has edges answer.
//
//	route NAME [path=REGEX] [host=HOST]           creates the route, or gives it another generation
//	delete NAME                                   deletes the route
//	pools NAME...                                 sets the EdgePools (at first: us)
//	check PATH                                    sets the health check of all clusters
//	certificate TEXT                              sets the certificate of the port 443
//	rejected NAME                                 writes into a route's status that an edge rejected it
//	status                                        writes the last reports into the statuses, by name
//	publish                                       one pass of the hub: Review, Build, Publish
//	ack                                           the edges of all pools ACK everything that is published
//	nack TYPE [version=N] [pool=NAME]             an edge NACKs a resource; the input's next line is Envoy's message
//	edges REGEX                                   passes, until nothing changes, with edges that NACK paths that contain the text
//	restart                                       another hub process
//	show                                          Describe
type story struct {
	t        *testing.T
	rollout  *Rollout
	routes   map[fleet.RouteRef]*storyRoute
	stale    map[fleet.ObjectRef]bool // not yet read by the hub
	pools    []lbsync.PoolRef
	secret   string
	check    *model.ClusterPolicy
	created  int                       // objects so far
	reports  map[fleet.RouteRef]string // the last: Envoy's message, or "" for accepted
	versions map[ResourceID][]string   // in the order of publication
}

type storyRoute struct {
	object     Object
	path, host string
}

func storyRef(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: name}}
}

var sharedGateway = gatewayRef(fleet.ObjectName{Namespace: "infra", Name: "shared"})

func newStory(t *testing.T) *story {
	s := &story{t: t, routes: map[fleet.RouteRef]*storyRoute{}, pools: []lbsync.PoolRef{{Pool: "us", Region: "us"}}}
	s.restart()
	return s
}

func (s *story) restart() {
	s.rollout, s.stale, s.versions = New(), map[fleet.ObjectRef]bool{}, map[ResourceID][]string{}
	objects := map[fleet.ObjectRef]Object{sharedGateway: {ObjectVersion: ObjectVersion{UID: "gateway", Generation: 7}}}
	for ref, route := range s.routes {
		objects[ref] = route.object
	}
	s.rollout.SetObjects(objects)
}

// build is what gateway.Build makes of the routes that are not rejected.
func (s *story) build(rejections []Rejection) model.Model {
	s.reports = map[fleet.RouteRef]string{}
	rejected := map[fleet.ObjectRef]bool{}
	for _, rejection := range rejections {
		rejected[rejection.Ref] = true
		s.reports[rejection.Ref] = rejection.Message
	}
	web := model.Listener{Gateway: sharedGateway.Name, Port: 80, Protocol: model.HTTP, Chains: []model.Chain{{Name: "web"}}}
	for _, pool := range s.pools {
		web.Addresses = append(web.Addresses, model.Address{Pool: pool.Pool, Address: netip.AddrFrom4([4]byte{198, 18, pool.Pool[0], 1})})
	}
	var m model.Model
	hosts := map[string][]model.Rule{}
	for _, ref := range slices.SortedFunc(maps.Keys(s.routes), fleet.RouteRef.Compare) {
		route := s.routes[ref]
		if rejected[ref] {
			continue
		}
		s.reports[ref] = ""
		key := "shop/" + ref.Name.Name + "/1"
		rule := model.Rule{Origin: model.Origin{Route: ref, Generation: route.object.Generation},
			Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: route.path}}, Forward: &model.Forward{Targets: []model.Target{{Assignment: key, Weight: 1}}}}
		m.Assignments = append(m.Assignments, model.Assignment{Key: key, Route: ref, Protocol: model.HTTP1, Policy: s.check})
		hosts[route.host] = append(hosts[route.host], rule)
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		web.Chains[0].Hosts = append(web.Chains[0].Hosts, model.VirtualHost{Hostname: host, Rules: hosts[host]})
	}
	m.Listeners = []model.Listener{web}
	if s.secret != "" {
		tls := web
		tls.Port, tls.Protocol, tls.Chains = 443, model.HTTPS, []model.Chain{{Name: "tls", Secrets: []string{"infra/cert"}}}
		m.Listeners = append(m.Listeners, tls)
		m.Secrets = []model.Secret{{Name: "infra/cert", Certificate: []byte(s.secret), PrivateKey: []byte("key")}}
	}
	return m
}

// publish is one pass of the hub. It gives what is new, and what is left out.
func (s *story) publish() string {
	var out strings.Builder
	writeRejections(&out, "event", s.rollout.AttributeAgain())
	for ref := range s.stale {
		if route, exists := s.routes[ref]; exists {
			s.rollout.SetObject(ref, route.object)
		} else {
			s.rollout.DeleteObject(ref)
		}
	}
	clear(s.stale)
	rejections := s.rollout.Review()
	changes := s.rollout.Publish(s.build(rejections), s.pools)
	for _, snapshot := range changes.Snapshots {
		fmt.Fprintf(&out, "%s: snapshot %d\n", snapshot.Pool, snapshot.Generation)
		for resource := range resourcesIn(snapshot.Resources) {
			id := idOf(resource)
			if !slices.Contains(s.versions[id], resource.Version) {
				s.versions[id] = append(s.versions[id], resource.Version)
			}
			if id.Type() == "RouteConfiguration" {
				fmt.Fprintf(&out, "  %s version %d:", id, slices.Index(s.versions[id], resource.Version)+1)
				for _, ref := range resource.Sources {
					if isRoute(ref) {
						fmt.Fprintf(&out, " %s", ref.Name.Name)
					}
				}
				out.WriteByte('\n')
			}
		}
	}
	for _, pool := range changes.Withdrawn {
		fmt.Fprintf(&out, "%s: withdrawn\n", pool)
	}
	writeRejections(&out, "left out", rejections)
	if s.rollout.HasWork() {
		out.WriteString("another pass is needed\n")
	}
	return out.String()
}

func writeRejections(out *strings.Builder, verb string, rejections []Rejection) {
	for _, rejection := range rejections {
		fmt.Fprintf(out, "%s: %s %s: %s\n", verb, rejection.Ref, ObjectVersion{rejection.UID, rejection.Generation}, rejection.Message)
	}
}

// published are the resources of the pools.
func (s *story) published(yield func(*envoy.Resource) bool) {
	for _, pool := range slices.Sorted(maps.Keys(s.rollout.pools)) {
		for resource := range resourcesIn(s.rollout.pools[pool].Resources) {
			if !yield(resource) {
				return
			}
		}
	}
}

func (s *story) nack(d *datadriven.TestData) string {
	var number int
	var pool string
	d.MaybeScanArgs(s.t, "version", &number)
	d.MaybeScanArgs(s.t, "pool", &pool)
	for resource := range s.published {
		id := idOf(resource)
		if id.Type() != d.CmdArgs[0].Key {
			continue
		}
		version := resource.Version
		if number > 0 {
			version = s.versions[id][number-1]
		}
		if pool != "" {
			version = s.rollout.pools[pool].Resources.Listeners[0].Version
		}
		return describeAttribution(s.rollout.Nack(Nack{Resource: id, Version: version, Message: strings.TrimSpace(d.Input)}))
	}
	return "no such resource\n"
}

func describeAttribution(a Attribution) string {
	out := new(strings.Builder)
	for _, ref := range a.Candidates {
		fmt.Fprintf(out, "candidate: %s\n", ref)
	}
	writeRejections(out, "event", a.Rejected)
	if out.Len() == 0 {
		return "no effect\n"
	}
	return out.String()
}

// answer has edges that are not asked twice answer all that is published: they
// NACK a RouteConfiguration that contains the text.
func (s *story) answer(bad string, asked map[string]bool) (out string) {
	for resource := range s.published {
		switch id := idOf(resource); {
		case asked[id.Name+resource.Version]:
			continue
		case id.Type() == "RouteConfiguration" && strings.Contains(string(resource.Body.GetValue()), bad):
			asked[id.Name+resource.Version] = true
			out += "NACK\n" + describeAttribution(s.rollout.Nack(Nack{Resource: id, Version: resource.Version, Message: "no"}))
		default:
			asked[id.Name+resource.Version] = true
			s.rollout.Ack(id, resource.Version)
			if id.Type() == "RouteConfiguration" {
				out += "ACK\n"
			}
		}
	}
	return out
}

func (s *story) edges(bad string) (out string) {
	asked := map[string]bool{}
	for range 20 {
		answers := s.answer(bad, asked)
		published := s.publish()
		out += answers + published
		if answers == "" && !strings.Contains(published, "snapshot") && !s.rollout.HasWork() {
			return out
		}
	}
	return out + "does not end\n"
}

// set creates or changes a route.
func (s *story) set(d *datadriven.TestData) {
	ref := storyRef(d.CmdArgs[0].Key)
	route := s.routes[ref]
	if route == nil {
		s.created++
		route = &storyRoute{host: "*", object: Object{ObjectVersion: ObjectVersion{UID: types.UID(fmt.Sprintf("uid-%d", s.created))}}}
		s.routes[ref] = route
	}
	route.object = Object{ObjectVersion: ObjectVersion{UID: route.object.UID, Generation: route.object.Generation + 1}}
	route.path = fmt.Sprintf("/%s-%d", ref.Name.Name, route.object.Generation)
	d.MaybeScanArgs(s.t, "path", &route.path)
	d.MaybeScanArgs(s.t, "host", &route.host)
	s.stale[ref] = true
}

// writeStatus writes the last reports as condition/writer does: by name.
func (s *story) writeStatus() {
	for ref, message := range s.reports {
		if route := s.routes[ref]; route != nil {
			route.object.Accepted, route.object.Rejected, route.object.Message = message == "", message != "", message
			s.stale[ref] = true
		}
	}
}

// run runs one command and then those in the lines below it.
func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	s.t = t
	out := s.command(d)
	if d.Cmd == "nack" || d.Cmd == "rejected" || strings.TrimSpace(d.Input) == "" {
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
	case "pools":
		s.pools = nil
		for _, arg := range d.CmdArgs {
			s.pools = append(s.pools, lbsync.PoolRef{Pool: arg.Key, Region: arg.Key})
		}
	case "certificate":
		s.secret = d.CmdArgs[0].Key
	case "check":
		s.check = &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: time.Second, Timeout: time.Second, Path: d.CmdArgs[0].Key}}
	case "status":
		s.writeStatus()
	case "rejected":
		ref := storyRef(d.CmdArgs[0].Key)
		s.routes[ref].object.Rejected, s.routes[ref].object.Message = true, strings.TrimSpace(d.Input)
		s.stale[ref] = true
	case "publish":
		return s.publish()
	case "ack":
		for resource := range s.published {
			s.rollout.Ack(idOf(resource), resource.Version)
		}
	case "nack":
		return s.nack(d)
	case "edges":
		return s.edges(d.CmdArgs[0].Key)
	case "restart":
		s.restart()
	case "show":
		return s.rollout.Describe()
	default:
		d.Fatalf(s.t, "unknown command %s", d.Cmd)
	}
	return ""
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := newStory(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}
