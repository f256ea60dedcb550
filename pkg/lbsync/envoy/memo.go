package envoy

import (
	"net/netip"
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Memo remembers what was made of listeners and of each host of large chains, so that one changed route costs one
// RouteConfiguration.
// The result is the same as without it, and shares memory with what it was before where it is equal. The zero value is
// empty.
type Memo struct {
	listeners map[listenerKey]*madeListener
	chains    map[string]*madeChain
}

// listenerKey is a listener at one address: pools have it at addresses of their own.
type listenerKey struct {
	name    string
	address netip.Addr
}

// madeListener is the Listener that was made of one without hosts.
type madeListener struct {
	from   lbsync.Listener
	scoped []bool // by chain: scopable
	made   Resources
	seen   bool // since the last Forget
}

// madeChain is what the hosts of a chain (never none) were translated to.
type madeChain struct {
	from []model.VirtualHost
	made []*Resources // of each host; nil for one that needs no scope
	out  Resources    // of all
	seen bool         // since the last Forget
}

// Forget drops the listeners and chains that no call of Translate has asked for since the last Forget.
func (m *Memo) Forget() {
	for at, l := range m.listeners {
		if !l.seen {
			delete(m.listeners, at)
		}
		l.seen = false
	}
	for name, c := range m.chains {
		if !c.seen {
			delete(m.chains, name)
		}
		c.seen = false
	}
}

// listener gives a Listener, as it was made before where nothing but what its hosts do is new.
func (m *Memo) listener(l lbsync.Listener, scoped []bool) Resources {
	at, from := listenerKey{ListenerName(&l.Listener), l.Address}, l
	from.Chains = slices.Clone(l.Chains)
	for i := range from.Chains {
		from.Chains[i].Hosts = nil
	}
	known := m.listeners[at]
	if known == nil || !slices.Equal(known.scoped, scoped) || !reflect.DeepEqual(known.from, from) {
		var t translator
		t.bare(l, scoped)
		known = &madeListener{from: from, scoped: scoped, made: t.out}
		if m.listeners == nil {
			m.listeners = map[listenerKey]*madeListener{}
		}
		m.listeners[at] = known
	}
	known.seen = true
	return known.made
}

// chain gives the RouteConfigurations and scopes of a chain's hosts; its name has the port, and says the protocol. The
// pools of a fleet share them, and from one round to the next few hosts change: equal memory needs no second look.
func (m *Memo) chain(l lbsync.Listener, name string, hosts []model.VirtualHost) Resources {
	last := m.chains[name]
	if last == nil {
		last = &madeChain{}
	}
	if model.SameMemory(last.from, hosts) {
		last.seen = true
		return last.out
	}
	next := last.with(l, name, hosts)
	if next == nil {
		next = last.remade(l, name, hosts)
	}
	next.seen = true
	if m.chains == nil {
		m.chains = map[string]*madeChain{}
	}
	m.chains[name] = next
	return next.out
}

// with is the chain with those hosts replaced that changed; nil where there are other hosts than before, or any part is
// one that Envoy would refuse. Scopes do not depend on what a host does.
func (c *madeChain) with(l lbsync.Listener, name string, hosts []model.VirtualHost) *madeChain {
	if len(c.out.Faults) > 0 || !slices.EqualFunc(c.from, hosts, func(a, b model.VirtualHost) bool { return a.Hostname == b.Hostname }) {
		return nil
	}
	next := &madeChain{from: hosts, made: slices.Clone(c.made), out: c.out}
	next.out.Routes = slices.Clone(c.out.Routes)
	at := 0 // in out.Routes
	for i, h := range hosts {
		if c.made[i] == nil {
			continue
		}
		if !same(c.from[i], h) {
			next.made[i] = madeOf(l, name, h)
			if len(next.made[i].Faults) > 0 {
				return nil
			}
			next.out.Routes[at] = next.made[i].Routes[0]
		}
		at++
	}
	return next
}

// remade is the chain with these hosts, of which those that were there before are remembered.
func (c *madeChain) remade(l lbsync.Listener, name string, hosts []model.VirtualHost) *madeChain {
	before := make(map[string]int, len(c.from))
	for i, h := range c.from {
		before[h.Hostname] = i
	}
	next := &madeChain{from: hosts, made: make([]*Resources, len(hosts))}
	for i, h := range hosts {
		if wild(h.Hostname) { // it has no rules, and so needs no scope
			continue
		}
		if k, found := before[h.Hostname]; found && same(c.from[k], h) {
			next.made[i] = c.made[k]
		} else {
			next.made[i] = madeOf(l, name, h)
		}
		next.out.Append(*next.made[i])
	}
	return next
}

func same(a, b model.VirtualHost) bool {
	return a.Hostname == b.Hostname && (model.SameMemory(a.Rules, b.Rules) || reflect.DeepEqual(a.Rules, b.Rules))
}
