package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/gateway/model"
)

// cost is what routes cost each edge that serves them, at most and without
// endpoints. It follows what lbsync/envoy makes of a Model; real_budget_test.go
// there compares the two with a real Envoy.
type cost struct {
	routes   int // Envoy routes
	clusters int // Envoy clusters
	bytes    int // of memory
	time     time.Duration
}

func (c cost) plus(other cost) cost {
	return cost{c.routes + other.routes, c.clusters + other.clusters, c.bytes + other.bytes, c.time + other.time}
}

func (c cost) minus(other cost) cost {
	return cost{c.routes - other.routes, c.clusters - other.clusters, c.bytes - other.bytes, c.time - other.time}
}

func (c cost) times(n int) cost { return cost{c.routes * n, c.clusters * n, c.bytes * n, c.time} }

func (c cost) part(n int) cost {
	return cost{c.routes / n, c.clusters / n, c.bytes / n, c.time / time.Duration(n)}
}

// Memory in bytes and times of one look at a route, measured on Envoy 1.40 with two
// workers at 2 GHz, and rounded up. Of a name or a value there are several copies:
// Envoy keeps what it was sent beside what it made of it.
const (
	clusterBytes   = 42_000
	hostBytes      = 1_500 // of a hostname on a port
	routeBytes     = 6_800
	matchBytes     = 600 // a header or query parameter to compare
	headerBytes    = 600 // a header to set, add or remove
	lookalikeBytes = 250 // a name that differs from such a header's by '_' alone, to remove
	separators     = 5   // of a name, in whose places lookalikes have the other one
	targetBytes    = 900
	mirrorBytes    = 800
	copiesOfText   = 6
	timePerRoute   = 150 * time.Nanosecond
	timePerValue   = 120 * time.Nanosecond
	timePerAllText = 1500 * time.Nanosecond // to read all headers: one that comes many times is joined
)

// setCost sets the cost of a plan's clusters, and of its rules on one host of one
// port. Both are functions of the route's spec alone: each backend counts as if it
// had a cluster of its own, whether it can be resolved or not. So no policy, import
// or grant that comes later makes a route dearer than when it was accepted.
func (p *routePlan) setCost() {
	p.each = cost{bytes: hostBytes}
	clusters := map[string]bool{}
	for i := range p.rules {
		rule := &p.rules[i]
		rule.addClusters(clusters)
		whole := rule.dearest()
		for _, m := range rule.matches {
			whole.Match = m.match
			p.each = p.each.plus(ruleCost(&whole, p.regexes))
		}
	}
	p.clusters = cost{clusters: len(clusters), bytes: len(clusters) * clusterBytes}
}

// addClusters adds the keys of the clusters that a rule may have at most. Rules with
// the same list of backends and the same timeout have the same clusters.
func (r *rulePlan) addClusters(clusters map[string]bool) {
	timeout := ptr.Deref(r.base.BackendTimeout, 0)
	entries := r.entries()
	list := "" // the weights of a single backend have no effect
	if len(entries) > 1 {
		list = fmt.Sprint(entries)
	}
	for _, e := range entries {
		if e.weight == 0 {
			continue
		}
		if list == "" {
			e = backendEntry{ref: e.ref}
		}
		clusters[fmt.Sprint(timeout, e, list)] = true
	}
	for i := range r.mirrors {
		clusters[fmt.Sprint(timeout, backendEntry{ref: r.mirrors[i].ref}, "")] = true
	}
}

// backendEntry is a backend of a rule that may have a cluster of its own.
type backendEntry struct {
	ref     reference
	weight  uint32
	filters bool
}

// entries are the backends of a rule. Backends with filters are never together in a
// cluster; of the others, equal ones always are. One without weight has no cluster of
// its own, but makes that of the others another one.
func (r *rulePlan) entries() (entries []backendEntry) {
	for i := range r.backends {
		b := &r.backends[i]
		at := -1
		if !b.hasFilters() {
			at = slices.IndexFunc(entries, func(e backendEntry) bool { return !e.filters && e.ref == b.ref })
		}
		if at >= 0 {
			entries[at].weight += b.weight
		} else {
			entries = append(entries, backendEntry{b.ref, b.weight, b.hasFilters()})
		}
	}
	return entries
}

// dearest is what a rule is in the Model at most, without its match.
func (r *rulePlan) dearest() model.Rule {
	rule := r.base
	key := assignmentKey(rule.Origin.Route, model.HTTP1, nil)
	if rule.Redirect == nil && len(r.backends) > 0 {
		rule.Forward = &model.Forward{}
		for i := range r.backends {
			rule.Forward.Targets = append(rule.Forward.Targets, model.Target{Assignment: key, Request: r.backends[i].request, Response: r.backends[i].response})
		}
	}
	for range r.mirrors {
		rule.Mirrors = append(rule.Mirrors, model.Mirror{Assignment: key})
	}
	return rule
}

// ruleCost is the cost of a rule on one host: of one Envoy route, and of two if it
// redirects.
func ruleCost(rule *model.Rule, regexes map[string]regex) cost {
	copies := 1
	if rule.Redirect != nil {
		copies = 2
	}
	c := cost{routes: 1, bytes: routeBytes, time: timePerRoute}
	text := len(rule.Origin.Route.Name.Namespace) + len(rule.Origin.Route.Name.Name) + len(rule.Origin.Name) + len(rule.Match.Path.Value)
	if rule.Match.Path.Kind == model.PathRegex {
		c.addRegex(regexes[rule.Match.Path.Value])
	}
	for _, values := range [][]model.ValueMatch{rule.Match.Headers, rule.Match.Query} {
		for i := range values {
			c.bytes, c.time = c.bytes+matchBytes, c.time+timePerValue
			text += len(values[i].Name) + len(values[i].Value)
			if values[i].Regex {
				c.addRegex(regexes[values[i].Value])
			}
		}
	}
	if len(rule.Match.Headers) > 0 || rule.Redirect != nil { // a redirect looks for a port in the host
		c.time += timePerAllText
	}
	c.bytes += headersCost(&rule.Response) + actionCost(rule) + copiesOfText*text
	return cost{routes: c.routes * copies, bytes: c.bytes * copies, time: c.time * time.Duration(copies)}
}

func (c *cost) addRegex(r regex) { c.bytes, c.time = c.bytes+r.bytes, c.time+r.time }

// actionCost is the memory of what a rule does with a request.
func actionCost(rule *model.Rule) int {
	bytes := headersCost(&rule.Request) + lookalikesCost(&rule.Request)
	if rule.Redirect != nil {
		bytes += copiesOfText * (len(rule.Redirect.Hostname) + pathText(rule.Redirect.Path))
	}
	if rule.Rewrite != nil { // a regular expression, and its prefix as a pattern
		bytes += regexBytes + copiesOfText*(len(rule.Rewrite.Hostname)+pathText(rule.Rewrite.Path)) + stepBytes*len(rule.Match.Path.Value)
	}
	if rule.Forward != nil {
		for i := range rule.Forward.Targets {
			target := &rule.Forward.Targets[i]
			bytes += targetBytes + copiesOfText*len(target.Assignment) + headersCost(&target.Request) + lookalikesCost(&target.Request) + headersCost(&target.Response)
			if len(rule.Forward.Targets) > 1 || !empty(target.Request) || !empty(target.Response) { // has the rule's changes as well
				bytes += headersCost(&rule.Request)
			}
		}
	}
	for i := range rule.Mirrors {
		bytes += mirrorBytes + copiesOfText*len(rule.Mirrors[i].Assignment)
	}
	return bytes
}

func pathText(change *model.PathChange) int {
	switch {
	case change == nil:
		return 0
	case change.Full != nil:
		return len(*change.Full)
	default:
		return len(*change.Prefix)
	}
}

func headersCost(c *model.HeaderChanges) int {
	bytes := 0
	for _, list := range [][]model.Header{c.Set, c.Add} {
		for i := range list {
			escaped := strings.Count(list[i].Value, "%") // Envoy gets two of each
			bytes += headerBytes + copiesOfText*(len(list[i].Name)+len(list[i].Value)+escaped)
		}
	}
	for _, name := range c.Remove {
		bytes += headerBytes + copiesOfText*len(name)
	}
	return bytes
}

// lookalikesCost is the memory of the names that edges remove from requests because they
// differ by '_' alone from headers that a filter handles.
func lookalikesCost(c *model.HeaderChanges) int {
	bytes := 0
	of := func(name string) {
		others := 1<<min(strings.Count(name, "-")+strings.Count(name, "_"), separators) - 1
		bytes += others * (lookalikeBytes + copiesOfText*len(name))
	}
	for _, list := range [][]model.Header{c.Set, c.Add} {
		for i := range list {
			of(list[i].Name)
		}
	}
	for _, name := range c.Remove {
		of(name)
	}
	return bytes
}
