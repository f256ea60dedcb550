package rollout

import (
	"reflect"
	"slices"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// translator translates the Model for each pool. It keeps the Envoy resources
// of each part of a Program, so that only a changed part is translated,
// validated and marshalled again.
type translator struct {
	// base is of what most edges get, views of what those get that refuse something:
	// they differ in little, and both are made in each round.
	base, views modelCache
	clusters    partCache[string, model.Assignment]
	secrets     partCache[string, lbsync.Secret]
}

// modelCache keeps the resources of the last Model of a kind.
type modelCache struct {
	listeners envoy.Cache
	model     model.Model    // the last one
	program   lbsync.Program // the last one, of the last pool
}

// partCache keeps the resources of the parts of one kind.
type partCache[K comparable, T any] struct {
	entries map[K]*entry[T]
	key     func(T) K // of a part in a list
	equal   func(a, b T) bool
	program func(T) lbsync.Program // a Program of nothing else

	last    listEntry[T]
	changed bool // get was called in this round
}

// listEntry keeps the resources of the last list of parts that was asked for.
// Mostly all pools have the same list, and it does not change between rounds.
type listEntry[T any] struct {
	parts     []T
	resources envoy.Resources
	used      bool // in this round
}

type entry[T any] struct {
	part      T
	resources envoy.Resources
	used      bool // in this round
}

func newTranslator() *translator {
	return &translator{
		clusters: partCache[string, model.Assignment]{entries: map[string]*entry[model.Assignment]{}, equal: model.Assignment.Equal,
			key:     func(a model.Assignment) string { return a.Key },
			program: func(a model.Assignment) lbsync.Program { return lbsync.Program{Assignments: []model.Assignment{a}} }},
		secrets: partCache[string, lbsync.Secret]{entries: map[string]*entry[lbsync.Secret]{}, equal: deepEqual[lbsync.Secret],
			key:     func(s lbsync.Secret) string { return s.Name },
			program: func(s lbsync.Secret) lbsync.Program { return lbsync.Program{Secrets: []lbsync.Secret{s}} }},
	}
}

// resources returns the resources of one pool. c is t.base or t.views. Call sweep
// after the last pool of a round.
func (t *translator) resources(c *modelCache, m model.Model, pool lbsync.PoolRef) envoy.Resources {
	listeners := lbsync.ListenersIn(m, pool)
	out := c.listeners.Translate(lbsync.Program{Listeners: listeners})
	if !model.SameSlice(c.model.Assignments, m.Assignments) || !model.SameSlice(c.model.Secrets, m.Secrets) || !lbsync.UseAlike(c.program.Listeners, listeners) {
		c.program = lbsync.ProgramFor(m, pool)
	}
	c.model, c.program.Listeners = m, listeners
	out.Append(t.clusters.getAll(c.program.Assignments))
	out.Append(t.secrets.getAll(c.program.Secrets))
	return out
}

// sweep ends a round: it drops what no pool asked for in it.
func (t *translator) sweep() {
	t.base.listeners.Sweep()
	t.views.listeners.Sweep()
	t.clusters.sweep()
	t.secrets.sweep()
}

// getAll returns the resources of a list of parts.
func (c *partCache[K, T]) getAll(parts []T) envoy.Resources {
	if len(parts) == 0 {
		return envoy.Resources{}
	}
	if equalLists(c.last.parts, parts, c.equal) {
		c.last.parts, c.last.used = parts, true
		return c.last.resources
	}
	c.markUsed()
	c.last = listEntry[T]{parts: parts, used: true}
	for _, part := range parts {
		c.last.resources.Append(c.get(c.key(part), part))
	}
	return c.last.resources
}

// markUsed marks the parts of the last list as used if the list was.
func (c *partCache[K, T]) markUsed() {
	if c.last.used {
		for _, part := range c.last.parts {
			c.entries[c.key(part)].used = true
		}
	}
}

// get returns the resources of one part.
func (c *partCache[K, T]) get(key K, part T) envoy.Resources {
	c.changed = true
	cached := c.entries[key]
	if cached == nil || !c.equal(cached.part, part) {
		cached = &entry[T]{part: part, resources: envoy.Translate(c.program(part))}
		c.entries[key] = cached
	}
	cached.used = true
	return cached.resources
}

// sweep drops the parts that no pool has asked for since the last sweep.
func (c *partCache[K, T]) sweep() {
	if c.last.used && !c.changed && len(c.entries) == len(c.last.parts) { // every pool has the last list, as in the last round
		c.last.used = false
		return
	}
	c.changed = false
	if c.markUsed(); !c.last.used {
		c.last = listEntry[T]{}
	}
	c.last.used = false
	for key, cached := range c.entries {
		if !cached.used {
			delete(c.entries, key)
		}
		cached.used = false
	}
}

func deepEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

// equalLists compares element by element, unless it is the same slice.
func equalLists[T any](a, b []T, equal func(a, b T) bool) bool {
	return model.SameSlice(a, b) || slices.EqualFunc(a, b, equal)
}
