package envoy

import (
	"net/netip"
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Cache keeps the resources of listeners, so that one changed route costs the translation of one list of rules. The result
// of Translate is the same as without a Cache, and shares memory with the last result where it is equal. The zero value is
// empty.
type Cache struct {
	listeners map[listenerKey]*cachedListener
	chains    map[string]*chainRoutes // by the name of the RouteConfiguration
}

// listenerKey is a listener at one address: each pool has it at an address of its own.
type listenerKey struct {
	name    string
	address netip.Addr
}

// cachedListener is the Listener resource of a listener. Its hosts have no influence on it.
type cachedListener struct {
	source    lbsync.Listener // without what routes need alone
	resources Resources
	used      bool // since the last Sweep
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

// listener returns a Listener resource: the cached one unless something other than hosts changed.
func (c *Cache) listener(l lbsync.Listener) Resources {
	at, source := listenerKey{ListenerName(&l.Listener), l.Address}, l
	source.Chains = slices.Clone(l.Chains)
	for i := range source.Chains {
		source.Chains[i].Hosts, source.Chains[i].Misdirected = nil, nil
	}
	cached := c.listeners[at]
	if cached == nil || !reflect.DeepEqual(cached.source, source) {
		var t translator
		t.withoutRoutes(l)
		cached = &cachedListener{source: source, resources: t.out}
		if c.listeners == nil {
			c.listeners = map[listenerKey]*cachedListener{}
		}
		c.listeners[at] = cached
	}
	cached.used = true
	return cached.resources
}

// routes returns the RouteConfiguration of a chain. All pools share it: its name has the port and implies the protocol.
func (c *Cache) routes(l lbsync.Listener, chain model.Chain) Resources {
	name := routesName(l, chain)
	last := c.chains[name]
	if last == nil || last.clients != l.Clients {
		last = &chainRoutes{}
	}
	if last.name != name || !model.SameSlice(last.hosts, chain.Hosts) || !slices.Equal(last.misdirected, chain.Misdirected) {
		last = last.next(l, name, chain)
		if c.chains == nil {
			c.chains = map[string]*chainRoutes{}
		}
		c.chains[name] = last
	}
	last.used = true
	return last.resources
}
