package server_test

import (
	"slices"
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"crossway.dev/crossway/pkg/lbsync/server"
)

// In a refused batch of clusters those that the message does not blame are
// applied (Envoy 1.40, seen), and the blamed one is left alone until it changes.
func TestRefusedBatch(t *testing.T) {
	for _, test := range []struct{ kind, message string }{
		{"Cluster", "Error adding/updating cluster(s) bad: not good: a: b, worse: cluster type"},
		{"Listener", "Error adding/updating listener(s) bad: not good\nworse: error binding\n"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			h := newHub(t, server.Config{})
			h.UpdateLoadAssignments(pool, nil, nil)
			e := running(h)
			h.SetResources(pool, snapshot(2, test.kind+" a@1 b@1 bad@1 worse@1"))
			e.nack(e.gets(test.kind+" a@1 b@1 bad@1 worse@1"), test.message)
			h.waitFor("envoy-0 acked " + test.kind + " a 1")
			h.waitFor("envoy-0 acked " + test.kind + " b 1")
			h.waitFor("envoy-0 nacked " + test.kind + " bad 1: " + test.message)
			h.waitFor("envoy-0 nacked " + test.kind + " worse 1: " + test.message)
			e.getsNothing()
			if n := h.count("envoy-0 nacked"); n != 2 {
				t.Errorf("%d resources were refused, want 2", n)
			}
			if got := h.generation("envoy-0"); got != 1 {
				t.Errorf("applied %d with two refused, want 1", got)
			}
			h.SetResources(pool, snapshot(3, test.kind+" a@1 b@1 bad@2"))
			e.takes(test.kind + " bad@2")
			h.waitFor("envoy-0 acked " + test.kind + " bad 2")
			if got := h.generation("envoy-0"); got != 3 {
				t.Errorf("applied %d, want 3", got)
			}
		})
	}
}

// Where the message names nobody, each goes alone until the culprit is found.
func TestRefusedBatchWithoutNames(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h)
	h.SetResources(pool, snapshot(2, "Cluster a@1 b@1 bad@1"))
	e.nack(e.gets("Cluster a@1 b@1 bad@1"), "Proto constraint validation failed")
	var alone []string
	for range 3 {
		r := e.receives()
		alone = append(alone, describe(r))
		if describe(r) == "Cluster bad@1" {
			e.nack(r, "Proto constraint validation failed")
		} else {
			e.ack(r)
		}
	}
	slices.Sort(alone)
	if want := []string{"Cluster a@1", "Cluster b@1", "Cluster bad@1"}; !slices.Equal(alone, want) {
		t.Fatalf("got %q, want %q", alone, want)
	}
	h.waitFor("envoy-0 acked Cluster a 1")
	h.waitFor("envoy-0 acked Cluster b 1")
	h.waitFor("envoy-0 nacked Cluster bad 1: Proto constraint validation failed")
	e.getsNothing()
}

// A refused route harms none of its neighbours, and waits for its next content;
// the one before is still in force and is not sent again either.
func TestRefusedRoute(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Route r@1 q@1")
	h.SetResources(pool, snapshot(2, "Route r@2 q@1"))
	e.nack(e.gets("RouteConfiguration r@2"), "regex too big")
	h.waitFor("envoy-0 nacked RouteConfiguration r 2: regex too big")
	h.SetResources(pool, snapshot(3, "Route r@2 q@2"))
	e.takes("RouteConfiguration q@2")
	e.getsNothing()
	state := h.Edges(pool)[0]
	if len(state.Nacks) != 1 || state.Nacks[0].Name != "r" || state.Generation != 1 || state.Answered != 3 {
		t.Errorf("state %+v, want r refused, generation 1 and 3 answered", state)
	}
	h.SetResources(pool, snapshot(4, "Route r@1 q@2"))
	e.getsNothing()
	if got := h.generation("envoy-0"); got != 4 {
		t.Errorf("applied %d after the route went back to what the edge has, want 4", got)
	}
}

// Envoy ACKs a bad secret when it comes a second time, and does not use it: the
// first answer counts.
func TestFalseAck(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	h.SetResources(pool, snapshot(1, "Secret s@1"))
	e := h.connect("envoy-0")
	e.asks(resourcev3.ClusterType, nil)
	e.takes("Cluster")
	e.asks(resourcev3.ListenerType, nil)
	e.takes("Listener")
	e.asks(resourcev3.SecretType, nil, "s")
	first := e.gets("Secret s@1")
	e.subscribes(resourcev3.SecretType, "s")
	second := e.gets("Secret s@1")
	e.nack(first, "key mismatch")
	e.ack(second)
	e.subscribes(resourcev3.SecretType, "s")
	e.getsNothing()
	if n := h.count("envoy-0 acked Secret"); n != 0 {
		t.Error("the second answer was taken for an ACK")
	}
	if got := h.generation("envoy-0"); got != 0 {
		t.Errorf("applied %d with a refused secret, want 0", got)
	}
}

// The same after the stream was lost: the process remembers, so must the server.
// A new process has forgotten.
func TestRefusalOutlivesTheStream(t *testing.T) {
	h := newHub(t, server.Config{})
	h.UpdateLoadAssignments(pool, nil, nil)
	e := running(h, "Cluster a@1", "Secret s@1")
	h.SetResources(pool, snapshot(2, "Cluster a@1", "Secret s@2"))
	e.nack(e.gets("Secret s@2"), "key mismatch")
	h.waitFor("envoy-0 nacked Secret s 2: key mismatch")

	again := h.connect("envoy-0") // the old stream is not known to be dead
	again.asks(resourcev3.ClusterType, versions{"a": "1"})
	again.takes("Cluster")
	again.asks(resourcev3.SecretType, versions{"s": "1"}, "s")
	again.getsNothing()
	if n := h.count("envoy-0 nacked Secret s 2"); n != 2 {
		t.Errorf("the NACK was observed %d times, want 2: again for the new stream", n)
	}

	e.cancel()
	again.cancel()
	for h.count("disconnected envoy-0") < 2 {
		h.waitFor("disconnected envoy-0")
	}
	third := h.connect("envoy-0")
	third.asks(resourcev3.ClusterType, versions{"a": "1"})
	third.takes("Cluster")
	third.asks(resourcev3.SecretType, versions{"s": "1"}, "s")
	third.getsNothing()
	third.cancel()

	fresh := h.connect("envoy-0")
	fresh.asks(resourcev3.ClusterType, nil)
	fresh.takes("Cluster a@1")
	fresh.asks(resourcev3.SecretType, nil, "s")
	fresh.gets("Secret s@2")
}
