package gateway

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// serve adds a Gateway to the Model, one Listener for each of its ports.
func (b *build) serve(p *gatewayState) {
	if p.refusal != nil {
		return
	}
	byPort := map[uint16][]*listener{}
	for _, l := range p.listeners {
		if l.ownsHostname() {
			byPort[l.port] = append(byPort[l.port], l)
		}
	}
	for port, listeners := range byPort {
		protocol := listeners[0].protocol
		if slices.ContainsFunc(listeners, func(l *listener) bool { return l.protocol != protocol }) {
			continue // a port has one protocol, and a conflict has no winner
		}
		served := model.Listener{Gateway: p.name, Port: port, Protocol: protocol, Addresses: p.addresses, Clients: clientSettings(p.parameters.Clients)}
		if protocol == model.HTTP {
			served.Chains = []model.Chain{b.plainChain(p.name, port, listeners)}
		} else {
			served.Chains = b.secureChains(p.name, port, listeners)
		}
		b.model.Listeners = append(b.model.Listeners, served)
	}
}

// plainChain merges all HTTP listeners of a port.
func (b *build) plainChain(gateway fleet.ObjectName, port uint16, listeners []*listener) model.Chain {
	// Envoy closes the connections of a chain whose name changes, so the name
	// depends on none of the listeners.
	chain := model.Chain{Name: "http"}
	owners, hosts := ownersOf(listeners), map[string][]*route{}
	for _, l := range listeners {
		collectHosts(l, owners, hosts)
	}
	chain.Hosts = b.virtualHosts(gateway, hosts)
	b.noteWider(place{gateway: gateway, port: port}, chain.Hosts, hosts, owners)
	return chain
}

// secureChains are the chains of an HTTPS port, one for each hostname. The chain
// of a hostname whose listeners are broken closes every connection, so that its
// clients never reach a wider chain.
func (b *build) secureChains(gateway fleet.ObjectName, port uint16, listeners []*listener) []model.Chain {
	owners := ownersOf(listeners)
	all := slices.Sorted(maps.Keys(owners))
	chains := make([]model.Chain, 0, len(all))
	for _, host := range all {
		l := owners[host]
		chain := model.Chain{Name: string(l.spec.Name), ServerName: host}
		if host == anyHost {
			chain.ServerName = ""
		}
		if l.broken() {
			chain.Reject = true
			chains = append(chains, chain)
			continue
		}
		hosts := map[string][]*route{}
		collectHosts(l, owners, hosts)
		chain.Secrets, chain.Hosts = slices.Sorted(slices.Values(l.secrets)), b.virtualHosts(gateway, hosts)
		b.noteWider(place{gateway: gateway, port: port}, chain.Hosts, hosts, owners)
		for _, other := range all {
			if other != host {
				chain.Misdirected = append(chain.Misdirected, other)
			}
		}
		chains = append(chains, chain)
	}
	slices.SortFunc(chains, func(x, y model.Chain) int { return strings.Compare(x.ServerName, y.ServerName) })
	return chains
}

// ownersOf are the listeners of a port by hostname. If several listeners have one
// hostname, all of them are broken, and any of them owns it.
func ownersOf(listeners []*listener) map[string]*listener {
	owners := make(map[string]*listener, len(listeners))
	for _, l := range listeners {
		if owners[l.host] == nil {
			owners[l.host] = l
		}
	}
	return owners
}

// collectHosts adds the hosts of a listener. The listener's own host is added even
// without routes. A host belongs only to the most specific listener that covers it
// (listener isolation, GEP-1713 and apis/v1 GatewaySpec.Listeners).
func collectHosts(l *listener, owners map[string]*listener, hosts map[string][]*route) {
	if _, found := hosts[l.host]; !found {
		hosts[l.host] = nil
	}
	if l.broken() {
		return
	}
	for _, a := range l.attachments {
		if ownerOf(a.host, owners) != l {
			continue
		}
		routes := hosts[a.host] // a route is added once, however many of its parentRefs and hostnames match
		if len(routes) == 0 || routes[len(routes)-1] != a.route {
			hosts[a.host] = append(routes, a.route)
		}
	}
}

func ownerOf(host string, owners map[string]*listener) (owner *listener) {
	widerHosts(host, func(wide string) bool {
		owner = owners[wide]
		return owner == nil
	})
	return owner
}

// virtualHosts merges the rules of all routes of each host. Routes are in order of
// age, so equal matches stay in the Gateway API's order.
func (b *build) virtualHosts(gateway fleet.ObjectName, hosts map[string][]*route) []model.VirtualHost {
	served := make([]model.VirtualHost, 0, len(hosts))
	for host, routes := range hosts {
		virtual := model.VirtualHost{Hostname: host}
		switch len(routes) {
		case 0:
		case 1:
			b.emit(routes[0])
			virtual.Rules = routes[0].rules
		default:
			m := b.merge(routes)
			virtual.Rules = m.rules
			for _, s := range m.shadows {
				s.gateway, s.host = gateway, host
				b.shadows = append(b.shadows, s)
			}
		}
		served = append(served, virtual)
	}
	slices.SortFunc(served, func(x, y model.VirtualHost) int { return strings.Compare(x.Hostname, y.Hostname) })
	return served
}

// mergedRules are the rules of several routes on the hosts that they have in common.
// A Memo keeps them.
type mergedRules struct {
	routes  []*routeResult
	rules   []model.Rule
	shadows []shadow // without Gateway and host
}

// mergedByOldest are mergedRules by their oldest route.
type mergedByOldest map[*routeResult][]*mergedRules

func (m mergedByOldest) find(routes []*routeResult) *mergedRules {
	for _, merged := range m[routes[0]] {
		if slices.Equal(merged.routes, routes) {
			return merged
		}
	}
	return nil
}

// merge merges the rules of routes. Hosts of the same routes have the same slice,
// so that edges get it once.
func (b *build) merge(routes []*route) *mergedRules {
	results := make([]*routeResult, len(routes))
	for i, r := range routes {
		b.emit(r)
		b.shared[r.ref] = true
		results[i] = r.routeResult
	}
	if m := b.memo.merged.find(results); m != nil {
		return m
	}
	m := b.last.merged.find(results)
	if m == nil {
		m = &mergedRules{routes: results}
		for _, r := range results {
			m.rules = append(m.rules, r.rules...)
		}
		m.rules = sorted(m.rules, ruleOrder)
		m.shadows = findShadows(results, m.rules)
	}
	b.memo.merged[results[0]] = append(b.memo.merged[results[0]], m)
	return m
}

// emit adds a route's assignments to the Model, once.
func (b *build) emit(r *route) {
	if !r.emitted {
		r.emitted = true
		b.model.Assignments = append(b.model.Assignments, r.assignments...)
	}
}

// addSecrets adds the certificates that chains name to the Model.
func (b *build) addSecrets() {
	used := map[string]bool{}
	for i := range b.model.Listeners {
		for j := range b.model.Listeners[i].Chains {
			for _, name := range b.model.Listeners[i].Chains[j].Secrets {
				used[name] = true
			}
		}
	}
	for name := range used {
		namespace, short, _ := strings.Cut(name, "/")
		secret := b.index.secrets[fleet.ObjectName{Namespace: namespace, Name: short}]
		b.model.Secrets = append(b.model.Secrets, model.Secret{
			Name: name, Certificate: secret.Data[corev1.TLSCertKey], PrivateKey: secret.Data[corev1.TLSPrivateKeyKey],
		})
	}
}

// addressesOf are the addresses allocated to a Gateway, by pool.
func (b *build) addressesOf(p *gatewayState) []model.Address {
	var addresses []model.Address
	for i := range b.in.Pools {
		pool := &b.in.Pools[i]
		if !servedBy(p.parameters, pool) {
			continue
		}
		for _, allocation := range pool.Status.Allocations {
			if allocation.Gateway.Namespace != p.name.Namespace || allocation.Gateway.Name != p.name.Name {
				continue
			}
			if address, err := netip.ParseAddr(allocation.Address); err == nil {
				addresses = append(addresses, model.Address{Pool: pool.Name, Address: address})
				break
			}
		}
	}
	slices.SortFunc(addresses, func(x, y model.Address) int { return cmp.Compare(x.Pool, y.Pool) })
	return addresses
}
