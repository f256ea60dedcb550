package linktest

import (
	"fmt"
	"strings"
	"testing"

	"crossway.dev/crossway/pkg/replica"
)

// diary writes down what an Observer is told.
type diary struct{ lines []string }

func (d *diary) note(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) take() string {
	out := strings.Join(d.lines, ", ")
	d.lines = nil
	return out
}

func (d *diary) observer() replica.Observer {
	state := func(what string) func(string) { return func(from string) { d.note("%s %s", from, what) } }
	return replica.Observer{
		Changed: func(from, key string, value []byte) { d.note("%s %s=%s", from, key, value) },
		Deleted: func(from, key string) { d.note("%s %s deleted", from, key) },
		Heard:   state("heard"), Silent: state("silent"), Leaving: state("leaving"), Gone: state("gone"),
	}
}

// What a consumer of a Link is told, from the start of two replicas to the end of one.
func TestNetwork(t *testing.T) {
	network := NewNetwork()
	a, b := network.Link("hub-a"), network.Link("hub-b")
	var told diary
	b.Topic("load").Subscribe(told.observer())
	expect := func(want string) {
		t.Helper()
		if got := told.take(); got != want {
			t.Errorf("hub-b was told %q, not %q", got, want)
		}
	}
	load := a.Topic("load")
	load.Set("one", []byte("1"))
	a.Start()
	b.Start()
	expect("hub-a one=1, hub-a heard")
	load.Set("one", []byte("1"))
	load.Set("two", []byte("2"))
	a.Topic("unread").Set("x", nil)
	load.Delete("one")
	expect("hub-a two=2, hub-a one deleted")

	network.Cut("hub-a", "hub-b")
	load.Delete("two")
	load.Set("three", []byte("3"))
	expect("hub-a silent")
	network.Heal("hub-a", "hub-b")
	expect("hub-a three=3, hub-a two deleted, hub-a heard")

	a.Leave()
	a.Stop()
	expect("hub-a leaving, hub-a silent")
	again := network.Link("hub-a")
	again.Topic("load").Set("four", []byte("4"))
	again.Start()
	expect("hub-a four=4, hub-a three deleted, hub-a heard")
	again.Stop()
	network.Gone("hub-a")
	expect("hub-a silent, hub-a four deleted, hub-a gone")
}

// An Observer may set values.
func TestObserverThatSets(t *testing.T) {
	network := NewNetwork()
	a, b := network.Link("hub-a"), network.Link("hub-b")
	var told diary
	a.Topic("shares").Subscribe(told.observer())
	b.Topic("load").Subscribe(replica.Observer{Changed: func(_, key string, value []byte) { b.Topic("shares").Set(key, value) }})
	a.Start()
	b.Start()
	a.Topic("load").Set("edge", []byte("1"))
	if got := told.take(); got != "hub-b heard, hub-b edge=1" {
		t.Errorf("hub-a was told %q", got)
	}
}
