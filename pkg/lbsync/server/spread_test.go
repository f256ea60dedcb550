package server

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/registration"
)

// edgesOf gives a server this many edges of a pool.
func edgesOf(s *Server, pool string, n int) {
	states := make([]EdgeState, n)
	for i := range states {
		states[i].Edge = Edge{Node: fmt.Sprint(i), Identity: registration.EdgeIdentity{Pool: pool}, Since: time.Now().Add(-time.Hour)}
	}
	s.pool(pool).edges.Store(&states)
}

// A replica has too many edges of a pool beside another one that serves and has told that it has fewer; not beside one that
// stops, is silent, or does not serve yet. Another pool's do not count.
func TestSpreader(t *testing.T) {
	type network = *linktest.Network
	type link = *linktest.Link
	for what, c := range map[string]struct {
		own, other int
		then       func(n network, b link)
		want       bool
	}{
		"two more":            {own: 2, want: true},
		"one more":            {own: 2, other: 1},
		"fewer":               {own: 2, other: 20},
		"the other one stops": {own: 20, then: func(_ network, b link) { b.Leave() }},
		"it is silent":        {own: 20, then: func(n network, _ link) { n.Cut("hub-a", "hub-b") }},
		"it comes back": {own: 20, want: true, then: func(n network, _ link) {
			n.Cut("hub-a", "hub-b")
			n.Heal("hub-a", "hub-b")
		}},
		"it starts again": {own: 20, then: func(n network, b link) { b.Stop(); n.Link("hub-b").Start() }},
	} {
		network := linktest.NewNetwork()
		a, b := network.Link("hub-a"), network.Link("hub-b")
		mine, other := New(Config{}), New(Config{})
		spread, elsewhere := NewSpreader(mine, a, nil, logr.Discard()), NewSpreader(other, b, nil, logr.Discard())
		a.Start()
		b.Start()
		edgesOf(mine, "us", c.own)
		edgesOf(mine, "eu", 5)
		edgesOf(other, "us", c.other)
		edgesOf(other, "eu", 5)
		if err := errors.Join(elsewhere.step(time.Now()), spread.step(time.Now())); err != nil {
			t.Fatal(err)
		}
		if c.then != nil {
			c.then(network, b)
		}
		if got := spread.moves.Due(time.Now(), "us", c.own, spread.elsewhere("us")); got != c.want {
			t.Errorf("%s: too many %v", what, got)
		}
		if spread.moves.Due(time.Now(), "eu", 5, spread.elsewhere("eu")) {
			t.Errorf("%s: too many of another pool", what)
		}
	}
}
