package envoy

import (
	"reflect"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	valuev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/cel/v3"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// scopedFrom is the number of hosts from which a chain has a RouteConfiguration for each host. Envoy rebuilds a whole
// RouteConfiguration for one changed route: 27 ms with 1000 hosts, against 1.5 ms when each is a resource of its own.
// Below it the rebuild is cheaper than the bookkeeping.
const scopedFrom = 50

// scopable says whether a chain can be served host by host: scopes are found by the whole name, so every host that has
// rules must be exact, as must those answered 421. A wildcard host without rules is what an unknown name is: 404.
func scopable(c model.Chain) bool {
	if len(c.Hosts) < scopedFrom {
		return false
	}
	wild := func(name string) bool { return strings.Contains(name, "*") }
	return !slices.ContainsFunc(c.Misdirected, wild) &&
		!slices.ContainsFunc(c.Hosts, func(h model.VirtualHost) bool { return wild(h.Hostname) && len(h.Rules) > 0 })
}

// scopeHeader carries the scope's name inside one Envoy. It is overwritten on every request and never sent on.
const scopeHeader = "x-crossway-scope"

// scoped adds a RouteConfiguration and a scope for each host of a chain. A scope is named as its RouteConfiguration
// and its key are: the chain's name and the host, because every connection manager of an Envoy sees all scopes.
func (t *translator) scoped(l lbsync.Listener, c model.Chain, manager *hcmv3.HttpConnectionManager) {
	chain := routesName(l, c)
	made := t.memo.chain(l, chain, c.Hosts)
	t.out.Routes = append(t.out.Routes, made.Routes...)
	t.out.ScopedRoutes = append(t.out.ScopedRoutes, made.ScopedRoutes...)
	t.out.Faults = append(t.out.Faults, made.Faults...)
	if m := misdirected(c); m != nil {
		name := chain + "/+misdirected" // no hostname has a plus
		t.add(&t.out.Routes, name, &routev3.RouteConfiguration{Name: name, IgnorePortInHostMatching: true,
			VirtualHosts: []*routev3.VirtualHost{m}})
		for _, host := range m.GetDomains() {
			t.add(&t.out.ScopedRoutes, chain+"/"+host, scope(chain+"/"+host, name))
		}
	}
	manager.HttpFilters = append(scopeFilters(chain), manager.GetHttpFilters()...)
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmv3.ScopedRoutes{
		Name:            "scopes",
		RdsConfigSource: ads(),
		ScopeKeyBuilder: keyBuilder(),
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: ads()}},
	}}
}

// chain gives the RouteConfigurations and scopes of a chain's hosts; its name has the port, and says the protocol. The
// pools of a fleet share them, and from one round to the next few hosts change: equal memory needs no second look.
func (m *Memo) chain(l lbsync.Listener, name string, hosts []model.VirtualHost) Resources {
	last := m.chains[name]
	if last == nil {
		last = &madeChain{}
	}
	if last.seen && len(last.from) == len(hosts) && &last.from[0] == &hosts[0] {
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
		if !hasScope(h) {
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
	next.out.Routes, next.out.ScopedRoutes = make([]Resource, 0, len(hosts)), make([]Resource, 0, len(hosts))
	for i, h := range hosts {
		if !hasScope(h) {
			continue
		}
		if k, found := before[h.Hostname]; found && same(c.from[k], h) {
			next.made[i] = c.made[k]
		} else {
			next.made[i] = madeOf(l, name, h)
		}
		next.out.Routes = append(next.out.Routes, next.made[i].Routes...)
		next.out.ScopedRoutes = append(next.out.ScopedRoutes, next.made[i].ScopedRoutes...)
		next.out.Faults = append(next.out.Faults, next.made[i].Faults...)
	}
	return next
}

// hasScope: a wildcard host has no rules in a chain that has scopes.
func hasScope(h model.VirtualHost) bool { return !strings.Contains(h.Hostname, "*") }

func same(a, b model.VirtualHost) bool {
	return a.Hostname == b.Hostname && len(a.Rules) == len(b.Rules) && (len(a.Rules) == 0 || &a.Rules[0] == &b.Rules[0] || reflect.DeepEqual(a.Rules, b.Rules))
}

// madeOf gives the RouteConfiguration and the scope of one host of a chain.
func madeOf(l lbsync.Listener, chain string, h model.VirtualHost) *Resources {
	var t translator
	name := chain + "/" + h.Hostname
	t.add(&t.out.Routes, name, &routev3.RouteConfiguration{Name: name, IgnorePortInHostMatching: true,
		RequestHeadersToRemove: []string{scopeHeader}, VirtualHosts: []*routev3.VirtualHost{t.host(l, name, h)}})
	t.add(&t.out.ScopedRoutes, name, scope(name, name))
	return &t.out
}

func scope(key, routes string) *routev3.ScopedRouteConfiguration {
	return &routev3.ScopedRouteConfiguration{Name: key, RouteConfigurationName: routes,
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{
			Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: key}}}}}
}

func keyBuilder() *hcmv3.ScopedRoutes_ScopeKeyBuilder {
	type (
		fragment  = hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder
		extractor = hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor
	)
	return &hcmv3.ScopedRoutes_ScopeKeyBuilder{Fragments: []*fragment{{
		Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{HeaderValueExtractor: &extractor{
			Name: scopeHeader, ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{Index: 0}}}}}}
}

// scopeFilters set the scope header from the request's host, in lower case and without a port, and let Envoy look for
// the route once more: it compares scopes as plain text.
func scopeFilters(chain string) []*hcmv3.HttpFilter {
	cel := &celv3.Cel{CelConfig: &corev3.CelExpressionConfig{EnableStringFunctions: true}}
	header := &headerv3.HeaderMutation{Mutations: &headerv3.Mutations{
		Formatters: []*corev3.TypedExtensionConfig{{Name: "envoy.formatter.cel", TypedConfig: packed(cel)}},
		RequestMutations: []*mutationv3.HeaderMutation{{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			Header:       &corev3.HeaderValue{Key: scopeHeader, Value: chain + "/%CEL(request.host.lowerAscii().split(':')[0])%"}}}}}}}
	again := &statev3.Config{ClearRouteCache: true, OnRequestHeaders: []*valuev3.FilterStateValue{{
		Key:        &valuev3.FilterStateValue_ObjectKey{ObjectKey: "crossway.scope"},
		FactoryKey: "envoy.string",
		Value: &valuev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: "set"}}}}}}}}
	return []*hcmv3.HttpFilter{
		{Name: "envoy.filters.http.header_mutation", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(header)}},
		{Name: "envoy.filters.http.set_filter_state", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(again)}},
	}
}
