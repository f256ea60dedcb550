package reconciler

import (
	"reflect"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

var (
	typeCluster  = typeURL(&clusterv3.Cluster{})
	typeListener = typeURL(&listenerv3.Listener{})
	typeRoute    = typeURL(&routev3.RouteConfiguration{})
	typeScope    = typeURL(&routev3.ScopedRouteConfiguration{})
	typeSecret   = typeURL(&tlsv3.Secret{})
)

// translation remembers the Envoy resources of each part of a Program, so that
// one changed part is translated, validated and marshalled, and no other. It is
// a value of the loop.
type translation struct {
	hosts     *envoy.Cache // of large listeners
	listeners parts[listenerKey, lbsync.Listener]
	clusters  parts[string, model.Assignment]
	secrets   parts[string, model.Secret]

	from    model.Model    // the last one
	program lbsync.Program // for its last place
}

// listenerKey is a listener in one pool.
type listenerKey struct{ pool, name string }

// parts are what was made of the parts of one kind.
type parts[K comparable, T any] struct {
	known map[K]*part[T]
	key   func(T) K // of a part in a list
	equal func(a, b T) bool
	alone func(T) lbsync.Program // a Program of nothing else

	last madeList[T]
}

// madeList is the last list of parts that was asked for: mostly all pools have
// the same, and it is as it was in the last round.
type madeList[T any] struct {
	from []T
	made envoy.Resources
	seen bool // in this round
}

type part[T any] struct {
	from T
	made envoy.Resources
	seen bool // in this round
}

func newTranslation() *translation {
	return &translation{
		hosts: new(envoy.Cache),
		listeners: parts[listenerKey, lbsync.Listener]{known: map[listenerKey]*part[lbsync.Listener]{}, equal: same[lbsync.Listener],
			alone: func(l lbsync.Listener) lbsync.Program { return lbsync.Program{Listeners: []lbsync.Listener{l}} }},
		clusters: parts[string, model.Assignment]{known: map[string]*part[model.Assignment]{}, equal: sameAssignment,
			key:   func(a model.Assignment) string { return a.Key },
			alone: func(a model.Assignment) lbsync.Program { return lbsync.Program{Assignments: []model.Assignment{a}} }},
		secrets: parts[string, model.Secret]{known: map[string]*part[model.Secret]{}, equal: same[model.Secret],
			key:   func(s model.Secret) string { return s.Name },
			alone: func(s model.Secret) lbsync.Program { return lbsync.Program{Secrets: []model.Secret{s}} }},
	}
}

// resources of one place. Call forget after the last place of a round.
func (t *translation) resources(m model.Model, place lbsync.PoolRef) envoy.Resources {
	listeners := lbsync.ListenersIn(m, place)
	var out envoy.Resources
	for _, l := range listeners {
		if large(&l.Listener) { // its hosts are compared one by one: comparing the whole would do that twice
			out.Append(t.hosts.Translate(t.listeners.alone(l)))
			continue
		}
		out.Append(t.listeners.made(listenerKey{place.Pool, envoy.ListenerName(&l.Listener)}, l))
	}
	if !model.SameSlice(t.from.Assignments, m.Assignments) || !model.SameSlice(t.from.Secrets, m.Secrets) || !lbsync.UseAlike(t.program.Listeners, listeners) {
		t.program = lbsync.ProgramFor(m, place)
	}
	t.from, t.program.Listeners = m, listeners
	out.Append(t.clusters.all(t.program.Assignments))
	out.Append(t.secrets.all(t.program.Secrets))
	return out
}

// large says whether a listener has more hosts than are worth comparing.
func large(l *model.Listener) bool {
	return slices.ContainsFunc(l.Chains, func(c model.Chain) bool { return len(c.Hosts) >= 50 })
}

// all is what was made of a list of parts.
func (p *parts[K, T]) all(list []T) envoy.Resources {
	if len(list) == 0 {
		return envoy.Resources{}
	}
	if sameList(p.last.from, list, p.equal) {
		p.last.from, p.last.seen = list, true
		return p.last.made
	}
	p.see()
	p.last = madeList[T]{from: list, seen: true}
	for _, one := range list {
		p.last.made.Append(p.made(p.key(one), one))
	}
	return p.last.made
}

// see tells the parts of the last list whether a place asked for them.
func (p *parts[K, T]) see() {
	if p.last.seen {
		for _, one := range p.last.from {
			p.known[p.key(one)].seen = true
		}
	}
}

// made is what was made of the part before, or is made of it now.
func (p *parts[K, T]) made(key K, from T) envoy.Resources {
	known := p.known[key]
	if known == nil || !p.equal(known.from, from) {
		known = &part[T]{from: from, made: envoy.Translate(p.alone(from))}
		p.known[key] = known
	}
	known.seen = true
	return known.made
}

// forget drops what no place has asked for since the last forget.
func (p *parts[K, T]) forget() {
	if p.see(); !p.last.seen {
		p.last = madeList[T]{}
	}
	p.last.seen = false
	for key, one := range p.known {
		if !one.seen {
			delete(p.known, key)
		}
		one.seen = false
	}
}

func same[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

// sameList compares one by one where it cannot be seen at once.
func sameList[T any](a, b []T, equal func(a, b T) bool) bool {
	return model.SameSlice(a, b) || slices.EqualFunc(a, b, equal)
}

// sameAssignment is DeepEqual, and quick where Build gave the same memory.
func sameAssignment(a, b model.Assignment) bool {
	return a.Key == b.Key && a.Route == b.Route && a.Protocol == b.Protocol && a.Timeout == b.Timeout &&
		sameBackends(a.Backends, b.Backends) && sameBackends(a.Fallback, b.Fallback) &&
		(a.Policy == b.Policy || reflect.DeepEqual(a.Policy, b.Policy))
}

func sameBackends(a, b []model.WeightedBackend) bool {
	return model.SameSlice(a, b) || len(a) == len(b) && reflect.DeepEqual(a, b)
}

// forget ends a round.
func (t *translation) forget() {
	t.hosts.Sweep()
	t.listeners.forget()
	t.clusters.forget()
	t.secrets.forget()
}
