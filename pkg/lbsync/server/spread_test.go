package server

import (
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/internal/linktest"
	"crossway.dev/crossway/pkg/registration"
)

// edgesOf gives a server this many edges, which connected some time ago.
func edgesOf(s *Server, n int, ago time.Duration) {
	states := make([]EdgeState, n)
	for i := range states {
		states[i].Edge = Edge{Node: "edge", Identity: registration.EdgeIdentity{Pool: "us"}, Since: time.Now().Add(-ago)}
	}
	s.pool("us").edges.Store(&states)
}

// A replica moves edges while another one that serves has told that it has many fewer; not to one that stops or is silent, and
// none that came lately.
func TestSpreader(t *testing.T) {
	type of struct {
		edges int
		ago   time.Duration
	}
	for what, c := range map[string]struct {
		own, other of
		then       func(n *linktest.Network, a, b *linktest.Link)
		want       bool
	}{
		"many more":           {own: of{20, time.Hour}, other: of{2, 0}, want: true},
		"some more":           {own: of{12, time.Hour}, other: of{10, 0}},
		"fewer":               {own: of{2, time.Hour}, other: of{20, 0}},
		"the other one stops": {own: of{20, time.Hour}, other: of{2, 0}, then: func(_ *linktest.Network, _, b *linktest.Link) { b.Leave() }},
		"it is silent":        {own: of{20, time.Hour}, other: of{2, 0}, then: func(n *linktest.Network, _, _ *linktest.Link) { n.Cut("hub-a", "hub-b") }},
		"it comes back": {own: of{20, time.Hour}, other: of{2, 0}, want: true, then: func(n *linktest.Network, _, _ *linktest.Link) {
			n.Cut("hub-a", "hub-b")
			n.Heal("hub-a", "hub-b")
		}},
	} {
		network := linktest.NewNetwork()
		a, b := network.Link("hub-a"), network.Link("hub-b")
		mine, other := New(Config{}), New(Config{})
		spread, elsewhere := NewSpreader(mine, a, logr.Discard()), NewSpreader(other, b, logr.Discard())
		a.Start()
		b.Start()
		edgesOf(mine, c.own.edges, c.own.ago)
		edgesOf(other, c.other.edges, c.other.ago)
		if err := errors.Join(elsewhere.step(), spread.step()); err != nil {
			t.Fatal(err)
		}
		if c.then != nil {
			c.then(network, a, b)
		}
		if got := spread.tooMany(c.own.edges); got != c.want {
			t.Errorf("%s: moves %v", what, got)
		}
	}
}
