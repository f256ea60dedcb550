package registration

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/condition"
)

// By whose word a member is reachable or not, since when, and what the message says where gossip and Lease disagree.
func TestReachable(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 3, 50, 0, time.UTC)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	others := []string{"eu-west", "us-east"}
	heard, edges := GossipWord{Heard: ago(0)}, []string{"eu"}
	silent := func(s int, reached, unreached []string) GossipWord {
		return GossipWord{Heard: ago(s), Silent: true, Reached: reached, Unreached: unreached}
	}
	for _, c := range []struct {
		what    string
		renewed int // seconds ago; -1: never
		word    GossipWord
		edges   []string
		want    string
		says    []string
	}{
		{"no gossip", 5, GossipWord{}, nil, "True Lease", []string{"renews its Lease"}},
		{"both hear it", 5, heard, nil, "True Gossip", []string{"the hub hears the agent"}},
		{"nobody ever came", -1, GossipWord{}, nil, "Unknown NeverHeard", nil},
		{"died 6 s ago: two words, and a Lease that has not run out", 8, silent(6, nil, others), nil, "False Gossip",
			[]string{"since 2026-01-01T12:03:44Z: neither the hub nor eu-west and us-east reach it", "its Lease was renewed last at 2026-01-01T12:03:42Z", "keeps its exports"}},
		{"the same, and nobody else can tell", 8, silent(6, nil, nil), nil, "True Lease", []string{"only the hub says so"}},
		{"the hub alone does not hear it", 8, silent(6, others, nil), nil, "True Gossip", []string{"the hub does not hear it, but eu-west and us-east reach it", "18002"}},
		{"gossip is blocked: the Lease was renewed long after", 2, silent(90, nil, others), nil, "True Lease", []string{"not heard it since 2026-01-01T12:02:20Z", "18002"}},
		{"gossip is blocked, and then the Lease runs out", 40, silent(90, nil, others), nil, "False Gossip", []string{"not heard of since 2026-01-01T12:03:10Z"}},
		{"no gossip, and the Lease runs out", 40, GossipWord{}, nil, "False Lease", []string{"has not renewed its Lease since 2026-01-01T12:03:10Z"}},
		{"the hub alone hears nothing, and the Lease runs out", 40, silent(38, nil, nil), nil, "False Lease", []string{"since 2026-01-01T12:03:12Z", "only the hub says so"}},
		{"it is heard and does not renew", 41, heard, nil, "False Lease", []string{"the hub hears the agent by gossip", "renewed last at 2026-01-01T12:03:09Z", "API server"}},
		{"the way to the hub is cut", 60, silent(58, []string{"eu-west"}, nil), nil, "False Lease", []string{"but eu-west reaches it"}},
		{"only the agent died", 60, silent(58, nil, others), edges, "False DataPlane", []string{"edges in eu get answers from its pods", "not heard of since"}},
		{"the same without gossip", 60, GossipWord{}, edges, "False DataPlane", []string{"edges in eu", "has not renewed its Lease"}},
		{"it said that it stops", 8, GossipWord{Heard: ago(6), Silent: true, Left: true, Unreached: others}, nil, "True Lease", nil},
		{"it said that it stops, and did not come back", 60, GossipWord{Heard: ago(58), Silent: true, Left: true}, nil, "False Lease", []string{"its last word was that it stops"}},
	} {
		f := MemberFacts{Member: *joined(idA, uidA), Now: now, Evidence: Evidence{Gossip: c.word, Edges: c.edges}}
		if c.renewed >= 0 {
			at := ago(c.renewed)
			f.LastRenewal = &at
		}
		got := reachable(f, "us-west")
		if is := string(got.Status) + " " + got.Reason; is != c.want {
			t.Errorf("%s: %s, want %s: %s", c.what, is, c.want, got.Message)
		}
		for _, says := range c.says {
			if !strings.Contains(got.Message, says) {
				t.Errorf("%s: %q is not in %q", c.what, says, got.Message)
			}
		}
	}
}

// Whoever lives and is heard changes no condition by that, however often.
func TestReachableStaysAsItIs(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 3, 50, 0, time.UTC)
	for _, word := range []GossipWord{{Heard: now}, {Heard: now.Add(-time.Hour), Silent: true, Unreached: []string{"eu-west"}}} {
		var first condition.Condition
		for i := range 30 {
			at := now.Add(time.Duration(i) * time.Second)
			renewed := at.Add(-time.Duration(i%10) * time.Second)
			if !word.Silent {
				word.Heard = at
			}
			got := reachable(MemberFacts{Member: *joined(idA, uidA), Now: at, LastRenewal: &renewed, Evidence: Evidence{Gossip: word}}, "us-west")
			if i == 0 {
				first = got
			}
			if got != first || got.Status != metav1.ConditionTrue {
				t.Fatalf("after %d s: %v, first %v", i, got, first)
			}
		}
	}
}
