package membership_test

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/membership"
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

var names = []membership.Name{"hub:h1", "hub:h2", "member:a", "member:b", "member:c"}

// sightings draws Sightings among which are many of one node and one number, also
// such that lie: another content under the same number.
var sightings = rapid.SliceOf(rapid.Custom(func(t *rapid.T) membership.Sighting {
	beat := membership.Beat{
		Node:    rapid.SampledFrom(names).Draw(t, "node"),
		Epoch:   rapid.Uint64Range(1, 2).Draw(t, "epoch"),
		Seq:     rapid.Uint64Range(1, 3).Draw(t, "seq"),
		Address: rapid.SampledFrom([]string{"", "10.0.0.1:1", "10.0.0.2:1"}).Draw(t, "address"),
		Leaving: rapid.Bool().Draw(t, "leaving"),
	}
	if rapid.Bool().Draw(t, "has an opinion") {
		beat.Opinions = []membership.Opinion{{Of: "member:z", Reached: rapid.Bool().Draw(t, "reached"), Age: time.Second}}
	}
	return membership.Sighting{Beat: beat, At: start.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Second)}
}))

func tableOf(sightings []membership.Sighting) membership.Table {
	t := membership.Table{}
	for _, s := range sightings {
		t.Hear(s)
	}
	return t
}

// Replicas of the hub tell each other what they heard in any order and more than once.
func TestMergeIsAJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := tableOf(sightings.Draw(t, "a")), tableOf(sightings.Draw(t, "b")), tableOf(sightings.Draw(t, "c"))
		for law, pair := range map[string][2]membership.Table{
			"idempotent":  {a.Merge(a), a},
			"commutative": {a.Merge(b), b.Merge(a)},
			"associative": {a.Merge(b).Merge(c), a.Merge(b.Merge(c))},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Fatalf("Merge is not %s: %v and %v", law, pair[0], pair[1])
			}
		}
	})
}

// The order in which Beats arrive is nothing.
func TestHearInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := sightings.Draw(t, "sightings")
		shuffled := rapid.Permutation(all).Draw(t, "shuffled")
		if a, b := tableOf(all), tableOf(append(shuffled, all...)); !reflect.DeepEqual(a, b) {
			t.Fatalf("%v and %v", a, b)
		}
	})
}

func TestMergeChangesNoInput(t *testing.T) {
	a, b := tableOf([]membership.Sighting{{Beat: membership.Beat{Node: "member:a", Seq: 1}}}), tableOf([]membership.Sighting{{Beat: membership.Beat{Node: "member:a", Seq: 2}}})
	a.Merge(b)
	if a["member:a"].Beat.Seq != 1 || b["member:a"].Beat.Seq != 2 {
		t.Errorf("Merge changed what it read: %v, %v", a, b)
	}
}

// An older Beat that arrives late is no sign of life.
func TestAnOldBeatIsNoSignOfLife(t *testing.T) {
	table := membership.Table{}
	table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:a", Epoch: 1, Seq: 2}, At: start})
	if table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:a", Epoch: 1, Seq: 2}, At: start.Add(time.Minute)}) {
		t.Error("the same Beat counts again, a minute later")
	}
	if table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:a", Epoch: 1, Seq: 1}, At: start.Add(time.Minute)}) {
		t.Error("an older Beat counts")
	}
	if !table.Hear(membership.Sighting{Beat: membership.Beat{Node: "member:a", Epoch: 2, Seq: 1}, At: start.Add(time.Minute)}) {
		t.Error("the first Beat after a restart does not count")
	}
}

// Addresses are compared as text, so each has one form.
func TestAddressesHaveOneForm(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1:18002": "10.0.0.1:18002", "[::ffff:10.0.0.1]:18002": "10.0.0.1:18002", "[FD00:0::1]:18002": "[fd00::1]:18002",
		"10.0.0.1": "", "hub:18002": "", "[fe80::1%eth0]:1": "[fe80::1]:1",
	} {
		got, err := membership.ParseAddress(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v; want %q", text, got, err, want)
		}
		if ok := (membership.Beat{Node: "member:a", Address: text}).Check() == nil; ok != (text == want) {
			t.Errorf("a Beat with address %s: %v", text, ok)
		}
	}
}
