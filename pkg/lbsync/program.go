package lbsync

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// PoolRef names an EdgePool and its region.
type PoolRef struct{ Pool, Region string }

// Program is what the edges of one pool serve, endpoints apart. All edges of a pool get the same.
type Program struct {
	Listeners   []Listener         // in the model's order
	Assignments []model.Assignment // that the listeners use, in the model's order
	Secrets     []Secret           // of the listeners' chains, in their order
}

// Listener is a model's listener at the one address that it has in the pool.
type Listener struct {
	model.Listener
	Address netip.Addr
}

// Secret is a certificate of one chain, under a name that does not say which Secret object it comes from. So a chain that
// gets another certificate stays the same chain to Envoy, and keeps its connections.
type Secret struct {
	model.Secret
	Name    string           // SecretName
	Gateway fleet.ObjectName // that the chain belongs to
}

// SecretName names the nth certificate of a chain.
func SecretName(l *model.Listener, chain string, n int) string {
	return fmt.Sprintf("%s/%d/%s/%d", l.Gateway, l.Port, chain, n)
}

// ProgramFor selects from a model what a pool serves: the listeners that have an address in the pool, and of the
// assignments and secrets those that these listeners use. The result shares memory with m; neither may be changed.
func ProgramFor(m model.Model, pool PoolRef) Program {
	p := Program{Listeners: ListenersIn(m, pool)}
	p.Assignments, p.Secrets = used(m, p.Listeners)
	return p
}

// ListenersIn are the listeners of ProgramFor alone.
func ListenersIn(m model.Model, pool PoolRef) []Listener {
	var in []Listener
	for _, l := range m.Listeners {
		k := slices.IndexFunc(l.Addresses, func(a model.Address) bool { return a.Pool == pool.Pool })
		if k < 0 || len(l.Chains) == 0 { // Envoy refuses a listener without chains
			continue
		}
		in = append(in, Listener{Listener: l, Address: l.Addresses[k].Address})
	}
	return in
}

// UseAlike says that two lists of listeners use the same assignments and secrets. It compares host by host, where most
// rules are the same slice, and may say false where only the order of hosts differs.
func UseAlike(a, b []Listener) bool {
	hosts := func(a, b model.VirtualHost) bool {
		return model.SameSlice(a.Rules, b.Rules) || maps.Equal(uses(a), uses(b))
	}
	chains := func(a, b model.Chain) bool {
		return a.Name == b.Name && slices.Equal(a.Secrets, b.Secrets) && slices.EqualFunc(a.Hosts, b.Hosts, hosts) && reflect.DeepEqual(a.TCP, b.TCP)
	}
	return slices.EqualFunc(a, b, func(a, b Listener) bool {
		return a.Gateway == b.Gateway && a.Port == b.Port && slices.EqualFunc(a.Chains, b.Chains, chains) && reflect.DeepEqual(a.UDP, b.UDP)
	})
}

func uses(h model.VirtualHost) map[string]bool {
	assignments := map[string]bool{}
	for _, rule := range h.Rules {
		use(assignments, rule)
	}
	return assignments
}

// used are the assignments that listeners of a model use, in the model's order, and the certificates of their chains.
func used(m model.Model, listeners []Listener) (using []model.Assignment, certificates []Secret) {
	assignments, secrets := make(map[string]bool, len(m.Assignments)), make(map[string]model.Secret, len(m.Secrets))
	for _, s := range m.Secrets {
		secrets[s.Name] = s
	}
	for i := range listeners {
		l := &listeners[i]
		useL4(assignments, l.UDP)
		for _, c := range l.Chains {
			useL4(assignments, c.TCP)
			for n, name := range c.Secrets {
				if s, found := secrets[name]; found {
					certificates = append(certificates, Secret{Secret: s, Name: SecretName(&l.Listener, c.Name, n), Gateway: l.Gateway})
				}
			}
			for _, h := range c.Hosts {
				for _, rule := range h.Rules {
					use(assignments, rule)
				}
			}
		}
	}
	for _, a := range m.Assignments {
		if assignments[a.Key] {
			using = append(using, a)
		}
	}
	return using, certificates
}

// useL4 notes the assignments that connections or datagrams are sent to.
func useL4(assignments map[string]bool, forward *model.L4Forward) {
	if forward == nil {
		return
	}
	for _, t := range forward.Targets {
		assignments[t.Assignment] = true
	}
}

// use notes the assignments that a rule sends requests to.
func use(assignments map[string]bool, rule model.Rule) {
	if rule.Forward != nil {
		for _, t := range rule.Forward.Targets {
			assignments[t.Assignment] = true
		}
	}
	for _, m := range rule.Mirrors {
		assignments[m.Assignment] = true
	}
}
