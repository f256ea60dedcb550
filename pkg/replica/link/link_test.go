package link

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/replica"
)

// What a replica is told of another one: from its start to its end, and of the process that takes its name.
func TestLink(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one")
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	for _, p := range []*process{a, b} {
		select {
		case <-p.Settled():
		case <-time.After(10 * time.Second):
			t.Fatal("not settled")
		}
	}
	a.expect(t, "hub-b heard")
	a.Topic("load").Set("two", []byte("2"))
	b.expect(t, "hub-a two=2")
	a.Topic("load").Delete("one")
	b.expect(t, "hub-a one deleted")
	a.Topic("nobody reads this").Set("x", nil)
	a.Leave()
	b.expect(t, "hub-a leaving")
	if got := b.Replicas(); len(got) != 1 || !got[0].Connected || !got[0].Leaving || got[0].Version != "v1" || time.Since(got[0].Heard) > time.Minute {
		t.Errorf("hub-b knows %+v", got)
	}
	a.stop()
	b.expect(t, "hub-a silent")
	if got := b.Describe(); !strings.Contains(got, "hub-a at "+a.address+": silent, leaving, heard ") {
		t.Errorf("hub-b says %s", got)
	}
	if !b.Replicas()[0].Listed {
		t.Error("the pod of hub-a is not listed")
	}
	h.at("hub-a", "")
	testkit.Eventually(t, "the pod of hub-a to be listed no more", func() bool { return !b.Replicas()[0].Listed })
	h.start(t, "hub-a", "three")
	b.expect(t, "hub-a three=three, hub-a two deleted, hub-a heard")
}

// Three replicas see each other, and one that is alone is settled.
func TestThree(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "a")
	<-a.Settled()
	h.start(t, "hub-b", "b")
	h.start(t, "hub-c", "c")
	testkit.EventuallySeen(t, "hub-a to hear both", func() (bool, any) {
		got := a.all()
		return strings.Contains(got, "hub-b b=b, hub-b heard") && strings.Contains(got, "hub-c c=c, hub-c heard"), got
	})
}

// A network that is cut makes a replica silent, and what it said is kept. After it is healed, what changed meanwhile comes.
func TestCut(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one", "two")
	w := newWire(t, a.address)
	h.at("hub-a", w.address)
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a two=two, hub-a heard")
	w.set(true)
	b.expect(t, "hub-a silent")
	a.Topic("load").Delete("one")
	a.Topic("load").Set("three", []byte("3"))
	if got := b.all(); got != "" {
		t.Errorf("hub-b was told %s", got)
	}
	w.set(false)
	b.expect(t, "hub-a three=3, hub-a one deleted, hub-a heard")
}

// Where a replica was, another one is: each is heard under its own name only.
func TestAddressOfAnother(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one")
	h.at("hub-0", a.address)
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	testkit.EventuallySeen(t, "hub-0 to be known and not heard", func() (bool, any) {
		got := b.Replicas()
		return len(got) == 2 && !got[0].Connected && got[1].Connected, got
	})
	if got := b.all(); got != "" {
		t.Errorf("hub-b was told %s", got)
	}
}

// A rotation of the CA makes nobody silent, and after it who has only a certificate of the old one is let in no more, not
// even on a connection that is open.
func TestRotation(t *testing.T) {
	h := newHub(t)
	a, b := h.start(t, "hub-a", "one"), h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	a.expect(t, "hub-b heard")
	old := h.replicaPair(h.ca)
	at := time.Now()
	stale := dial(t, h.clientTLS(old), a.address)
	for _, request := range []string{registration.RotateStart, "", registration.RotateForce} {
		at = at.Add(registration.NextCAWait)
		rotated, err := h.ca.Rotate(registration.Rotation{Request: request, Now: at, Random: rand.Reader})
		h.Must(err)
		h.ca = rotated.CA
		before := a.certificates.current.Load()
		h.secrets.set(h.replicaPair(h.ca), h.ca.Bundle())
		if before.ctx.Err() == nil {
			t.Fatal("the former certificate is still used")
		}
		a.Topic("load").Set("one", []byte(request))
		b.expect(t, "hub-a one="+request)
	}
	if got := a.all() + b.all(); got != "" {
		t.Errorf("during the rotation they were told %s", got)
	}
	if _, err := read(t, stale); err == nil {
		t.Error("a certificate of the old CA opens a stream on its old connection")
	}
	if _, err := read(t, dial(t, h.clientTLS(old), a.address)); err == nil {
		t.Error("a certificate of the old CA is let in")
	}
}

// Who read a replica at an address where it is no longer has no say in whether it is heard.
func TestReaderThatWasStopped(t *testing.T) {
	h := newHub(t)
	h.start(t, "hub-a", "one")
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	b.refused(stopped, b.known()["hub-a"], "hub-a")
	if got := b.Replicas(); !got[0].Connected || b.all() != "" {
		t.Errorf("hub-b knows %+v and was told %s", got, b.all())
	}
	b.refused(t.Context(), b.known()["hub-a"], "hub-a")
	b.expect(t, "hub-a silent")
}

// Large maps come whole, and a value beyond the limit is not sent: others hear that they do not know it.
func TestLargeMaps(t *testing.T) {
	h := newHub(t)
	a := h.prepared(t, "hub-a")
	value := []byte(strings.Repeat("v", replica.MaxValueBytes))
	for _, key := range strings.Split("abcdefgh", "") {
		a.Topic("load").Set(key, value)
	}
	a.Topic("load").Set("i", append(value, 'v'))
	a.run(t)
	b := h.start(t, "hub-b")
	want := ""
	for _, key := range strings.Split("abcdefgh", "") {
		want += "hub-a " + key + "=vvvvvvvvvvvvvvvvvvvv, "
	}
	b.expect(t, want+"hub-a i unknown, hub-a heard")
}

// A Link without an address has no others.
func TestAlone(t *testing.T) {
	l := New(Config{Name: "hub"})
	go func() { _ = l.Start(t.Context()) }()
	<-l.Settled()
	if got := l.Replicas(); len(got) != 0 {
		t.Errorf("others: %v", got)
	}
}

// What is not a replica's address does not stop others from being read.
func TestAddressThatAnswersNothing(t *testing.T) {
	h := newHub(t)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.Must(err)
	defer func() { _ = socket.Close() }()
	h.at("hub-0", socket.Addr().String())
	h.start(t, "hub-a", "one")
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	<-b.Settled() // after a time, since hub-0 is never heard
}

// A replica that others cannot read any more does not go on.
func TestServingEnds(t *testing.T) {
	h := newHub(t)
	a := h.prepared(t, "hub-a")
	h.Must(a.certificates.watch(t.Context()))
	socket, err := net.Listen("tcp", a.address)
	h.Must(err)
	ended := make(chan error, 1)
	defer a.serve(t.Context(), socket, func(err error) { ended <- err })()
	h.Must(socket.Close())
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}
