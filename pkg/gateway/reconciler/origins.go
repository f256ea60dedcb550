package reconciler

import (
	"iter"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// rules are all rules of these listeners.
func rules(listeners []model.Listener) iter.Seq[*model.Rule] {
	return func(yield func(*model.Rule) bool) {
		for l := range listeners {
			for c := range listeners[l].Chains {
				for h := range listeners[l].Chains[c].Hosts {
					host := &listeners[l].Chains[c].Hosts[h]
					for r := range host.Rules {
						if !yield(&host.Rules[r]) {
							return
						}
					}
				}
			}
		}
	}
}

// gatewayRef refers to a Gateway.
func gatewayRef(name fleet.ObjectName) fleet.ObjectRef {
	return fleet.ObjectRef{Kind: condition.Gateway, Name: name}
}

// generations are the current generations of Gateways and routes.
type generations map[fleet.ObjectRef]int64

// originsOf finds which objects a resource is made of, by its name:
//
//	Listener            <namespace>/<gateway>/<port>
//	RouteConfiguration  <namespace>/<gateway>/<port>[/<chain of HTTPS>][/<host>]; scopes alike
//	Cluster             the assignment's key
//	Secret              <namespace>/<name>
//
// A RouteConfiguration of which the name says less is made of all rules of the
// part that it names.
func originsOf(id resourceID, m *model.Model, now generations) origins {
	from := origins{}
	add := func(o fleet.ObjectRef) {
		if generation, exists := now[o]; exists {
			from[o] = generation
		}
	}
	switch id.typeURL {
	case typeListener:
		for i := range m.Listeners {
			if envoy.ListenerName(&m.Listeners[i]) == id.name {
				add(gatewayRef(m.Listeners[i].Gateway))
			}
		}
	case typeRoute, typeScope:
		for rule := range rulesOf(id.name, m) {
			from[rule.Origin.Route] = rule.Origin.Generation
		}
	case typeCluster:
		i, found := slices.BinarySearchFunc(m.Assignments, id.name, func(a model.Assignment, key string) int { return strings.Compare(a.Key, key) })
		if found {
			add(m.Assignments[i].Route)
		}
	case typeSecret:
		for i := range m.Listeners {
			if slices.ContainsFunc(m.Listeners[i].Chains, func(c model.Chain) bool { return slices.Contains(c.Secrets, id.name) }) {
				add(gatewayRef(m.Listeners[i].Gateway))
			}
		}
	}
	return from
}

// rulesOf are the rules that a RouteConfiguration's name covers.
func rulesOf(name string, m *model.Model) iter.Seq[*model.Rule] {
	return func(yield func(*model.Rule) bool) {
		for l := range m.Listeners {
			rest, ok := strings.CutPrefix(name, envoy.ListenerName(&m.Listeners[l]))
			if !ok || rest != "" && rest[0] != '/' {
				continue
			}
			chain, host, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
			if m.Listeners[l].Protocol == model.HTTP { // its one chain goes without saying
				chain, host = "", chain
			}
			chains := named(m.Listeners[l].Chains, chain, func(c *model.Chain) string { return c.Name })
			for c := range chains {
				hosts := named(chains[c].Hosts, host, func(h *model.VirtualHost) string { return h.Hostname })
				for h := range hosts {
					for r := range hosts[h].Rules {
						if !yield(&hosts[h].Rules[r]) {
							return
						}
					}
				}
			}
		}
	}
}

// named is the one element of this name, or all where none has it.
func named[T any](all []T, name string, nameOf func(*T) string) []T {
	for i := range all {
		if nameOf(&all[i]) == name {
			return all[i : i+1]
		}
	}
	return all
}

// gatewaysOf are the Gateways that a resource serves: the one that the name of
// a listener or RouteConfiguration begins with, or those that a Secret or a
// Cluster is for.
func gatewaysOf(id resourceID, m *model.Model) []fleet.ObjectName {
	var out []fleet.ObjectName
	for i := range m.Listeners {
		l := &m.Listeners[i]
		name := envoy.ListenerName(l)
		serves := id.name == name || strings.HasPrefix(id.name, name+"/")
		switch id.typeURL {
		case typeSecret:
			serves = slices.ContainsFunc(l.Chains, func(c model.Chain) bool { return slices.Contains(c.Secrets, id.name) })
		case typeCluster:
			serves = forwardTo(m.Listeners[i:i+1], id.name)
		}
		if serves && !slices.Contains(out, l.Gateway) {
			out = append(out, l.Gateway)
		}
	}
	return out
}

// forwardTo says whether any of these listeners sends requests to an assignment.
func forwardTo(listeners []model.Listener, assignment string) bool {
	for rule := range rules(listeners) {
		if rule.Forward != nil && slices.ContainsFunc(rule.Forward.Targets, func(t model.Target) bool { return t.Assignment == assignment }) ||
			slices.ContainsFunc(rule.Mirrors, func(m model.Mirror) bool { return m.Assignment == assignment }) {
			return true
		}
	}
	return false
}
