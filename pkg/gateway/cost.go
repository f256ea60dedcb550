package gateway

import (
	"time"

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

// Memory in bytes and times of one look at a route, measured on Envoy 1.40 with two
// workers at 2 GHz, and rounded up. Of a name or a value there are several copies:
// Envoy keeps what it was sent beside what it made of it.
const (
	clusterBytes   = 42_000
	hostBytes      = 1_500 // of a hostname on a port
	routeBytes     = 6_800
	matchBytes     = 600 // a header or query parameter to compare
	headerBytes    = 600 // a header to set, add or remove
	targetBytes    = 900
	mirrorBytes    = 800
	copiesOfText   = 6
	timePerRoute   = 150 * time.Nanosecond
	timePerValue   = 120 * time.Nanosecond
	timePerAllText = 1500 * time.Nanosecond // to read all headers: one that comes many times is joined
)

// setCost sets the cost of a route's clusters, and of its rules on one host of one
// port.
func (r *routeResult) setCost() {
	r.clusters = cost{clusters: len(r.assignments), bytes: len(r.assignments) * clusterBytes}
	r.each = cost{bytes: hostBytes}
	for i := range r.rules {
		r.each = r.each.plus(ruleCost(&r.rules[i], r.plan.regexes))
	}
}

// ruleCost is the cost of a rule on one host. A rule that forwards any method is
// two Envoy routes, and so is a redirect.
func ruleCost(rule *model.Rule, regexes map[string]regex) cost {
	copies := 1
	if rule.Redirect != nil || rule.Forward != nil && rule.Match.Method == "" {
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
	bytes := headersCost(&rule.Request)
	if rule.Redirect != nil {
		bytes += copiesOfText * (len(rule.Redirect.Hostname) + pathText(rule.Redirect.Path))
	}
	if rule.Rewrite != nil { // a regular expression, and its prefix as a pattern
		bytes += regexBytes + copiesOfText*(len(rule.Rewrite.Hostname)+pathText(rule.Rewrite.Path)) + stepBytes*len(rule.Match.Path.Value)
	}
	if rule.Forward != nil {
		for i := range rule.Forward.Targets {
			target := &rule.Forward.Targets[i]
			bytes += targetBytes + copiesOfText*len(target.Assignment) + headersCost(&target.Request) + headersCost(&target.Response)
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
			bytes += headerBytes + copiesOfText*(len(list[i].Name)+len(list[i].Value))
		}
	}
	for _, name := range c.Remove {
		bytes += headerBytes + copiesOfText*len(name)
	}
	return bytes
}
