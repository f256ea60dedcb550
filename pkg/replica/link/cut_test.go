package link

import (
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/replica"
)

// The connection of a replica that was taken for silent ends, though all of it comes, late: the replica is dialled again, and is
// heard once it has said all anew.
func TestSilenceEndsTheConnection(t *testing.T) {
	h := newHub(t)
	h.start(t, "hub-a", "one")
	b := h.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	for !strings.Contains(b.all(), "silent") { // a heartbeat may come between
		b.Link.mu.Lock()
		for range replica.SilentTicks - 1 {
			b.others["hub-a"].presence.Tick()
		}
		b.Link.mu.Unlock()
		b.tick()
	}
	b.expect(t, "hub-a silent, hub-a heard")
}

// With a new certificate a replica reads others on new connections, also those that do not know the new Secret yet and would let
// the old connections be.
func TestNewCertificateEndsWhatIsRead(t *testing.T) {
	h := newHub(t)
	a := h.start(t, "hub-a", "one")
	late := &hub{T: h.T, ca: h.ca, secrets: &secrets{}, peers: map[string]string{"hub-a": a.address}}
	late.secrets.set(late.replicaPair(h.ca), h.ca.Bundle())
	b := late.start(t, "hub-b")
	b.expect(t, "hub-a one=one, hub-a heard")
	readFrom := func() *connection {
		b.Link.mu.Lock()
		defer b.Link.mu.Unlock()
		return b.others["hub-a"].present
	}
	before := readFrom()
	late.secrets.set(late.replicaPair(h.ca), h.ca.Bundle())
	testkit.Eventually(t, "hub-a to be read on another connection", func() bool { return readFrom() != before })
	a.Topic("load").Set("one", []byte("2"))
	b.expect(t, "hub-a one=2")
}
