package rollout

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// The cache never shows: after any change, all resources are those of a
// translation without a cache, in pools that differ and in large listeners.
func TestCacheChangesNothing(t *testing.T) {
	all := []lbsync.PoolRef{{Pool: "us", Region: "us"}, {Pool: "eu", Region: "eu"}, {Pool: "none", Region: "us"}}
	pools := all[:2]
	cached := newTranslator()
	m := wide(60)
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"first", func() {}},
		{"nothing", func() {}},
		{"one route", func() { m = changed(m, 30, 2) }},
		{"another assignment for a route, and none for the other", func() {
			m = changed(m, 30, 3)
			m.Listeners[0].Chains[0].Hosts[30].Rules[0].Forward = m.Listeners[0].Chains[0].Hosts[31].Rules[0].Forward
		}},
		{"one assignment", func() {
			assignments := append([]model.Assignment(nil), m.Assignments...)
			assignments[3].Policy = &model.ClusterPolicy{HealthCheck: &model.HealthCheck{Interval: time.Second, Timeout: time.Second}}
			m.Assignments = assignments
		}},
		{"another assignment's fallback", func() {
			assignments := append([]model.Assignment(nil), m.Assignments...)
			assignments[4].Fallback = assignments[5].Backends
			m.Assignments = assignments
		}},
		{"pools go", func() { pools = nil }},
		{"pools come back", func() { pools = all[:2] }},
		{"a certificate", func() {
			l := m.Listeners[0]
			chain := l.Chains[0]
			chain.Secrets = []string{"infra/shop"}
			l.Chains = []model.Chain{chain}
			m.Listeners, m.Secrets = []model.Listener{l}, []model.Secret{{Name: "infra/shop", Certificate: []byte("old"), PrivateKey: []byte("key")}}
		}},
		{"its successor", func() {
			m.Secrets = []model.Secret{{Name: "infra/shop", Certificate: []byte("new"), PrivateKey: []byte("key")}}
		}},
		{"nobody uses it", func() {
			l := m.Listeners[0]
			chain := l.Chains[0]
			chain.Secrets = nil
			l.Chains = []model.Chain{chain}
			m.Listeners = []model.Listener{l}
		}},
		{"a pool without listeners", func() { pools = all }},
		{"a small listener, in one pool only", func() {
			small := wide(2).Listeners[0]
			small.Port, small.Addresses = 81, small.Addresses[:1]
			m.Listeners = append(append([]model.Listener(nil), m.Listeners...), small)
		}},
		{"its address", func() {
			m.Listeners = append([]model.Listener(nil), m.Listeners...)
			m.Listeners[1].Addresses = []model.Address{{Pool: "eu", Address: netip.MustParseAddr("198.18.2.9")}}
		}},
		{"a host goes", func() {
			m.Listeners = append([]model.Listener(nil), m.Listeners...)
			chain := m.Listeners[0].Chains[0]
			chain.Hosts = chain.Hosts[1:]
			m.Listeners[0].Chains = []model.Chain{chain}
		}},
		{"pools go again", func() { pools = nil }},
		{"one comes back", func() { pools = all[1:2] }},
		{"nothing more", func() {}},
		{"others do", func() { pools = []lbsync.PoolRef{all[2], all[1], all[0]} }},
		{"all goes", func() { m = model.Model{} }},
	} {
		step.change()
		used := map[string]bool{}
		for _, pool := range pools {
			program := lbsync.ProgramFor(m, pool)
			for _, a := range program.Assignments {
				used[a.Key] = true
			}
			got, want := cached.resources(&cached.base, m, pool), envoy.Translate(program)
			if !reflect.DeepEqual(versions(got), versions(want)) {
				t.Errorf("after %s: %s has %v, want %v", step.name, pool.Pool, versions(got), versions(want))
			}
		}
		cached.sweep()
		if n := len(cached.clusters.entries); n != len(used) {
			t.Errorf("after %s: %d clusters are cached, %d are used", step.name, n, len(used))
		}
	}
}

func versions(r envoy.Resources) map[ResourceID]string {
	out := map[ResourceID]string{}
	for _, list := range lists(r) {
		for _, one := range list {
			out[idOf(&one)] = one.Version
		}
	}
	return out
}
