package gossip_test

import (
	"testing"

	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// A node's opinion that is new or another one is told at once. Tries of which nobody wants to know cost no Beat.
func TestBeatAfterATry(t *testing.T) {
	n, err := gossip.New(gossip.Config{Name: membership.Member("a"), Fleet: "fleet"})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what                 string
		wanted, reached, due bool
	}{
		{"it explores in vain", false, false, false},
		{"it explores", false, true, false},
		{"somebody asks, and it reaches the node", true, true, false}, // it had reached it: the opinion is no other one
		{"a try fails", true, false, false},
		{"another one fails", true, false, true},
		{"a third fails", true, false, false},
		{"the node is back", true, true, true},
	} {
		if due := n.Tried(membership.Member("b"), step.wanted, step.reached); due != step.due {
			t.Errorf("%s: a Beat is due: %v", step.what, due)
		}
	}
}
