package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Numbers of fields in Envoy's route.proto and route_components.proto.
const (
	virtualHostsField protowire.Number = 2 // of RouteConfiguration
	nameField         protowire.Number = 1 // of VirtualHost
	routesField       protowire.Number = 3 // of VirtualHost
)

// chainRoutes is the RouteConfiguration of one chain, and the encoded parts that it was put together from. A field that
// may be repeated is encoded as often as it has values, so the encodings of two lists, one after the other, are the
// encoding of both (https://protobuf.dev/programming-guides/encoding/#last-one-wins). One changed route is thus one list of
// rules that is translated, validated and encoded, and a copy of the others.
type chainRoutes struct {
	name        string // of the RouteConfiguration
	clients     model.ClientSettings
	hosts       []model.VirtualHost
	misdirected []string
	domains     map[string]domain // by hostname
	lists       map[rulesKey]*ruleList
	base        *Resource     // without virtual hosts; nil: Envoy would refuse it
	groups      []virtualHost // in the order of their first hosts
	groupOf     []int         // by index in hosts; noGroup: Envoy would refuse the hostname
	refused     []Fault       // of hostnames
	resources   Resources
	used        bool // since the last Sweep
}

// domain is a hostname, encoded as a value of the field "domains" of a virtual host.
type domain struct {
	encoded []byte
	problem error
}

// rulesKey is the memory of a list of rules. A Model is never changed, so the same memory is the same list.
type rulesKey struct {
	first  *model.Rule
	len    int
	before string // depths of the rules of narrower hosts that come first
}

func keyOf(rules []model.Rule, before depths) rulesKey {
	if len(rules) == 0 {
		return rulesKey{}
	}
	key := rulesKey{first: &rules[0], len: len(rules)}
	if len(before) > 0 {
		key.before = fmt.Sprint(before)
	}
	return key
}

// ruleList are the routes of one list of rules, for all hosts that have it.
type ruleList struct {
	encoded []byte // the field "routes" of a virtual host
	sum     [sha256.Size]byte
	sources []fleet.ObjectRef // routes, in order
	faults  []Fault           // without Name
	depths  depths
	readers []string // namespaces on whose depths the routes depend
}

// virtualHost are the hosts of one chain that have equal routes.
type virtualHost struct {
	header []byte      // its name and domains, encoded
	routes []*ruleList // its own, and those of wider hosts
	hosts  int
}

// size is the length of the encoding.
func (h *virtualHost) size() int {
	size := len(h.header)
	for _, list := range h.routes {
		size += len(list.encoded)
	}
	return size
}

func sameRoutes(a, b *ruleList) bool { return a.sum == b.sum }

// sumOf is equal for equal lists of routes.
func sumOf(lists []*ruleList) string {
	sum := ""
	for _, list := range lists {
		sum += string(list.sum[:])
	}
	return sum
}

const noGroup = -1

// next returns the RouteConfiguration of the chain as it is now, with the parts of the last one that did not change.
func (c *chainRoutes) next(l lbsync.Listener, name string, chain model.Chain) *chainRoutes {
	if patched := c.patched(l, chain); patched != nil {
		return patched
	}
	next := &chainRoutes{name: name, clients: l.Clients, hosts: chain.Hosts, misdirected: chain.Misdirected,
		domains: make(map[string]domain, len(chain.Hosts)), lists: make(map[rulesKey]*ruleList, len(c.lists))}
	base := &routev3.RouteConfiguration{Name: name, IgnorePortInHostMatching: true}
	if m := misdirected(chain); m != nil {
		base.VirtualHosts = []*routev3.VirtualHost{m}
	}
	resource, err := pack(name, base)
	if err != nil {
		next.resources.Faults = []Fault{{TypeURL: resourcev3.RouteType, Name: name, Message: err.Error()}}
		return next
	}
	next.base = &resource
	next.group(l, c)
	sources := []fleet.ObjectRef{gatewayRef(l.Gateway)}
	for i := range next.groups {
		sources = append(sources, next.groups[i].routes[0].sources...)
	}
	next.assemble(unique(sources))
	return next
}

// patched returns the RouteConfiguration of a chain in which some hosts that share their rules with no other have other rules,
// and all else is as before; nil: more changed. So one changed route of many costs no look-up of all hosts.
func (c *chainRoutes) patched(l lbsync.Listener, chain model.Chain) *chainRoutes {
	if c.base == nil || len(c.hosts) != len(chain.Hosts) || !slices.Equal(c.misdirected, chain.Misdirected) {
		return nil
	}
	next := *c
	next.hosts, next.groups = chain.Hosts, slices.Clone(c.groups)
	sameWider := func(x, y model.WiderRules) bool { return model.SameSlice(x.Rules, y.Rules) }
	for i := range chain.Hosts {
		if c.hosts[i].Hostname != chain.Hosts[i].Hostname || !slices.EqualFunc(c.hosts[i].Wider, chain.Hosts[i].Wider, sameWider) {
			return nil
		}
		at := c.groupOf[i]
		if at == noGroup || model.SameSlice(c.hosts[i].Rules, chain.Hosts[i].Rules) {
			continue
		}
		old, routes := c.groups[at].routes, next.listsOf(l, chain.Hosts[i], c)
		delete(next.lists, keyOf(c.hosts[i].Rules, nil))
		isEqual := func(h virtualHost) bool { return slices.EqualFunc(h.routes, routes, sameRoutes) }
		if c.groups[at].hosts > 1 || !slices.Equal(old[0].sources, routes[0].sources) || !slices.EqualFunc(old, routes, sameRoutes) && slices.ContainsFunc(next.groups, isEqual) {
			return nil
		}
		next.groups[at].routes = routes
	}
	next.assemble(c.resources.Routes[0].Sources)
	return &next
}

// assemble makes the resource of its parts, and adds the faults of the routes.
func (c *chainRoutes) assemble(sources []fleet.ObjectRef) {
	resource := *c.base
	resource.Body = &anypb.Any{TypeUrl: resource.TypeURL, Value: concatenated(c.base.Body.GetValue(), c.groups)}
	resource.Version = versionOf(c.base.Version, c.groups)
	resource.Sources = sources
	c.resources = Resources{Routes: []Resource{resource}, Faults: slices.Clip(c.refused)}
	for i := range c.groups {
		for _, fault := range c.groups[i].routes[0].faults {
			fault.Name = c.name
			c.resources.Faults = append(c.resources.Faults, fault)
		}
	}
}

// group sets the virtual hosts of a chain. Hosts of equal routes are one virtual host, whether they share the memory of
// their rules or not.
func (c *chainRoutes) group(l lbsync.Listener, last *chainRoutes) {
	c.groups, c.groupOf = make([]virtualHost, 0, len(c.hosts)), make([]int, len(c.hosts))
	index := make(map[string]int, len(c.hosts))
	for i, h := range c.hosts {
		d := c.domain(h.Hostname, last)
		if d.problem != nil {
			c.groupOf[i] = noGroup
			c.refused = append(c.refused, Fault{TypeURL: resourcev3.RouteType, Name: c.name, Part: h.Hostname, Message: d.problem.Error()})
			continue
		}
		routes := c.listsOf(l, h, last)
		sum := sumOf(routes)
		at, found := index[sum]
		if !found {
			at = len(c.groups)
			index[sum] = at
			header := append(make([]byte, 0, len(virtualHostDefaults)+2*len(d.encoded)), virtualHostDefaults...)
			header = protowire.AppendTag(header, nameField, protowire.BytesType)
			c.groups = append(c.groups, virtualHost{header: protowire.AppendString(header, h.Hostname), routes: routes})
		}
		group := &c.groups[at]
		group.header = append(group.header, d.encoded...)
		group.hosts++
		c.groupOf[i] = at
	}
}

// domain returns a hostname as one domain of a virtual host, or why Envoy would refuse it.
func (c *chainRoutes) domain(hostname string, last *chainRoutes) domain {
	d, found := last.domains[hostname]
	if !found {
		d.problem = validate(&routev3.VirtualHost{Name: hostname, Domains: []string{hostname}})
		if d.problem == nil {
			d.encoded, d.problem = proto.Marshal(&routev3.VirtualHost{Domains: []string{hostname}})
		}
	}
	c.domains[hostname] = d
	return d
}

// listsOf returns the routes of a host: its own, and those of the hosts whose rules serve the rest.
func (c *chainRoutes) listsOf(l lbsync.Listener, h model.VirtualHost, last *chainRoutes) []*ruleList {
	own := c.list(l, h.Rules, nil, last)
	lists, before := []*ruleList{own}, own.depths
	for _, wide := range h.Wider {
		list := c.list(l, wide.Rules, nil, last)
		before, list = before.with(list.depths), c.list(l, wide.Rules, before.of(list.readers), last)
		lists = append(lists, list)
	}
	return lists
}

// list returns the routes of a list of rules, after those of narrower hosts of some depths.
func (c *chainRoutes) list(l lbsync.Listener, rules []model.Rule, before depths, last *chainRoutes) *ruleList {
	key := keyOf(rules, before)
	list := c.lists[key]
	if list == nil {
		if list = last.lists[key]; list == nil {
			list = encodeRules(l, rules, before)
		}
		c.lists[key] = list
	}
	return list
}

// encodeRules translates, validates and encodes a list of rules.
func encodeRules(l lbsync.Listener, rules []model.Rule, before depths) *ruleList {
	guards := newSlashGuards(l, rules)
	list := &ruleList{sources: appendRoutes(nil, rules), depths: guards.depths()}
	for i := range rules {
		list.readers = append(append(list.readers, rules[i].Lenders...), rules[i].Origin.Route.Name.Namespace)
	}
	slices.Sort(list.readers)
	list.readers = slices.Compact(list.readers)
	routes, faults := virtualHostRoutes(l, rules, guards, before)
	list.faults = faults
	for _, route := range routes {
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(route)
		if err != nil { // text that is not UTF-8
			list.faults = append(list.faults, Fault{TypeURL: resourcev3.RouteType, Part: route.GetName(), Message: err.Error()})
			continue
		}
		list.encoded = protowire.AppendBytes(protowire.AppendTag(list.encoded, routesField, protowire.BytesType), encoded)
	}
	list.sum = sha256.Sum256(list.encoded)
	return list
}

// concatenated are the bytes of a RouteConfiguration with more virtual hosts.
func concatenated(base []byte, hosts []virtualHost) []byte {
	size := len(base)
	for _, h := range hosts {
		size += protowire.SizeTag(virtualHostsField) + protowire.SizeBytes(h.size())
	}
	out := append(make([]byte, 0, size), base...)
	for _, h := range hosts {
		out = protowire.AppendTag(out, virtualHostsField, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(h.size()))
		out = append(out, h.header...)
		for _, list := range h.routes {
			out = append(out, list.encoded...)
		}
	}
	return out
}

// versionOf is a hash of what the RouteConfiguration consists of. The routes of most hosts are large and did not change,
// so their hashes stand for them.
func versionOf(base string, hosts []virtualHost) string {
	sum := sha256.New()
	sum.Write([]byte(base))
	for _, h := range hosts {
		sum.Write(h.header)
		sum.Write([]byte(sumOf(h.routes)))
	}
	return hex.EncodeToString(sum.Sum(nil)[:10])
}
