package envoy

import (
	"net/netip"
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Cache keeps the resources of listeners, and of each host of large chains, so that one changed route costs one
// RouteConfiguration. The result of Translate is the same as without a Cache, and shares memory with the last result
// where it is equal. The zero value is empty.
type Cache struct {
	listeners map[listenerKey]*cachedListener
	chains    map[string]*cachedChain // by the name of its RouteConfiguration
}

// listenerKey is a listener at one address: each pool has it at an address of its own.
type listenerKey struct {
	name    string
	address netip.Addr
}

// cachedListener is the Listener resource of a listener. Its hosts have no influence on it.
type cachedListener struct {
	source    lbsync.Listener // without hosts
	scoped    []bool          // by chain: scopable
	resources Resources
	used      bool // since the last Sweep
}

// cachedChain is what the hosts of a chain (never none) were translated to.
type cachedChain struct {
	hosts     []model.VirtualHost
	byHost    []*Resources // of each host; nil for one that needs no scope
	resources Resources    // of all hosts
	used      bool         // since the last Sweep
}

// Sweep drops the listeners and chains that no call of Translate has used since the last Sweep.
func (c *Cache) Sweep() {
	for at, l := range c.listeners {
		if !l.used {
			delete(c.listeners, at)
		}
		l.used = false
	}
	for name, chain := range c.chains {
		if !chain.used {
			delete(c.chains, name)
		}
		chain.used = false
	}
}

// listener returns a Listener resource: the cached one unless something other than the rules of its hosts changed.
func (c *Cache) listener(l lbsync.Listener, scoped []bool) Resources {
	at, source := listenerKey{ListenerName(&l.Listener), l.Address}, l
	source.Chains = slices.Clone(l.Chains)
	for i := range source.Chains {
		source.Chains[i].Hosts = nil
	}
	cached := c.listeners[at]
	if cached == nil || !slices.Equal(cached.scoped, scoped) || !reflect.DeepEqual(cached.source, source) {
		var t translator
		t.withoutRoutes(l, scoped)
		cached = &cachedListener{source: source, scoped: scoped, resources: t.out}
		if c.listeners == nil {
			c.listeners = map[listenerKey]*cachedListener{}
		}
		c.listeners[at] = cached
	}
	cached.used = true
	return cached.resources
}

// chain returns the RouteConfigurations and scopes of a chain's hosts. The chain's name has the port and implies the
// protocol, so all pools share it. Few hosts change from one call to the next: the same slice is not compared again.
func (c *Cache) chain(l lbsync.Listener, name string, hosts []model.VirtualHost) Resources {
	last := c.chains[name]
	if last == nil {
		last = &cachedChain{}
	}
	if model.SameSlice(last.hosts, hosts) {
		last.used = true
		return last.resources
	}
	next := last.replaceChanged(l, name, hosts)
	if next == nil {
		next = last.rebuild(l, name, hosts)
	}
	next.used = true
	if c.chains == nil {
		c.chains = map[string]*cachedChain{}
	}
	c.chains[name] = next
	return next.resources
}

// replaceChanged returns the chain with its changed hosts translated again. It returns nil if the hostnames differ or if
// Envoy would refuse any part. Scopes do not depend on a host's rules.
func (c *cachedChain) replaceChanged(l lbsync.Listener, name string, hosts []model.VirtualHost) *cachedChain {
	sameName := func(a, b model.VirtualHost) bool { return a.Hostname == b.Hostname }
	if len(c.resources.Faults) > 0 || !slices.EqualFunc(c.hosts, hosts, sameName) {
		return nil
	}
	next := &cachedChain{hosts: hosts, byHost: slices.Clone(c.byHost), resources: c.resources}
	next.resources.Routes = slices.Clone(c.resources.Routes)
	at := 0 // in resources.Routes
	for i, h := range hosts {
		if c.byHost[i] == nil {
			continue
		}
		if !sameHost(c.hosts[i], h) {
			next.byHost[i] = translateHost(l, name, h)
			if len(next.byHost[i].Faults) > 0 {
				return nil
			}
			next.resources.Routes[at] = next.byHost[i].Routes[0]
		}
		at++
	}
	return next
}

// rebuild returns the chain with these hosts; a host that did not change keeps its resources.
func (c *cachedChain) rebuild(l lbsync.Listener, name string, hosts []model.VirtualHost) *cachedChain {
	before := make(map[string]int, len(c.hosts))
	for i, h := range c.hosts {
		before[h.Hostname] = i
	}
	next := &cachedChain{hosts: hosts, byHost: make([]*Resources, len(hosts))}
	for i, h := range hosts {
		if isWildcard(h.Hostname) { // it has no rules, and so needs no scope
			continue
		}
		if k, ok := before[h.Hostname]; ok && sameHost(c.hosts[k], h) {
			next.byHost[i] = c.byHost[k]
		} else {
			next.byHost[i] = translateHost(l, name, h)
		}
		next.resources.Append(*next.byHost[i])
	}
	return next
}

func sameHost(a, b model.VirtualHost) bool {
	return a.Hostname == b.Hostname && (model.SameSlice(a.Rules, b.Rules) || reflect.DeepEqual(a.Rules, b.Rules))
}
