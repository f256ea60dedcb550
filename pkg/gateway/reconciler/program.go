package reconciler

import (
	"reflect"
	"strconv"

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

func itoa(port uint16) string { return strconv.Itoa(int(port)) }

// translation remembers the Envoy resources of each part of a Program, so that
// one changed part is translated, validated and marshalled, and no other. Parts
// that Build took from its memo share memory with their predecessors, which
// makes comparing them cheap. It is a value of the loop.
type translation struct {
	memo      *envoy.Memo // of the hosts of large listeners
	listeners map[listenerKey]*part[lbsync.Listener]
	clusters  map[string]*part[model.Assignment]
	secrets   map[string]*part[model.Secret]
	hosts     *envoy.Memo // of large listeners
}

// listenerKey is a listener in one pool.
type listenerKey struct{ pool, name string }

type part[T any] struct {
	from T
	made envoy.Resources
	seen bool // in this round
}

func newTranslation() translation {
	return translation{
		memo:      &envoy.Memo{},
		listeners: map[listenerKey]*part[lbsync.Listener]{},
		clusters:  map[string]*part[model.Assignment]{},
		secrets:   map[string]*part[model.Secret]{},
		hosts:     new(envoy.Memo),
	}
}

// resources of one place. Call forget after the last place of a round.
func (t translation) resources(m model.Model, place lbsync.Place) envoy.Resources {
	program := lbsync.ProgramFor(m, place)
	var out envoy.Resources
	for _, l := range program.Listeners {
		key := listenerKey{place.Pool, listenerName(&l.Listener)}
		appendTo(&out, translated(t, t.listeners, key, l, func() lbsync.Program { return lbsync.Program{Listeners: []lbsync.Listener{l}} }))
	}
	for _, a := range program.Assignments {
		appendTo(&out, translated(t, t.clusters, a.Key, a, func() lbsync.Program { return lbsync.Program{Assignments: []model.Assignment{a}} }))
	}
	for _, s := range program.Secrets {
		appendTo(&out, translated(t, t.secrets, s.Name, s, func() lbsync.Program { return lbsync.Program{Secrets: []model.Secret{s}} }))
	}
	return out
}

// translated is what was made of the part before, or is made of it now.
func translated[K comparable, T any](t translation, memo map[K]*part[T], key K, from T, program func() lbsync.Program) envoy.Resources {
	known := memo[key]
	if known == nil || !reflect.DeepEqual(known.from, from) {
		known = &part[T]{from: from, made: t.memo.Translate(program())}
		memo[key] = known
	}
	known.seen = true
	return known.made
}

func appendTo(out *envoy.Resources, more envoy.Resources) {
	out.Listeners = append(out.Listeners, more.Listeners...)
	out.Routes = append(out.Routes, more.Routes...)
	out.ScopedRoutes = append(out.ScopedRoutes, more.ScopedRoutes...)
	out.Clusters = append(out.Clusters, more.Clusters...)
	out.Secrets = append(out.Secrets, more.Secrets...)
	out.Faults = append(out.Faults, more.Faults...)
}

// forget drops what no place has asked for since the last forget.
func (t translation) forget() {
	t.hosts.Forget()
	t.memo.Forget()
	forget(t.listeners)
	forget(t.clusters)
	forget(t.secrets)
}

func forget[K comparable, T any](memo map[K]*part[T]) {
	for key, p := range memo {
		if !p.seen {
			delete(memo, key)
		}
		p.seen = false
	}
}
