package replica

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

func all(string) bool { return true }

// Whatever is set and deleted, and wherever connections break, a Mirror that has read
// everything is equal to the maps that it mirrors, and its Updates lead there.
func TestMirrorFollowsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		own, mirror := NewOwn(), NewMirror()
		follower := own.Follow()
		told := map[address]value{}
		read := func(limit int) {
			f := Frame{}
			f.Updates, f.Whole = follower.Next(limit)
			updates, err := mirror.Apply(f, all)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range updates {
				if u.Deleted {
					delete(told, address{u.Topic, u.Key})
				} else {
					told[address{u.Topic, u.Key}] = value{u.Value, u.Unknown}
				}
			}
		}
		key := rapid.Custom(func(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key") })
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				if err := own.Set("t"+key.Draw(t, "topic"), key.Draw(t, "key"), []byte(key.Draw(t, "value"))); err != nil {
					t.Fatal(err)
				}
			},
			"lose": func(t *rapid.T) {
				if err := own.Set("t"+key.Draw(t, "topic"), key.Draw(t, "key"), make([]byte, MaxValueBytes+1)); err == nil {
					t.Fatal("a value over the limit was taken")
				}
			},
			"delete":  func(t *rapid.T) { own.Delete("t"+key.Draw(t, "topic"), key.Draw(t, "key")) },
			"read":    func(t *rapid.T) { read(rapid.IntRange(1, 20).Draw(t, "limit")) },
			"restart": func(*rapid.T) { own = NewOwn(); follower = own.Follow(); mirror.Begin() },
			"break":   func(*rapid.T) { follower.End(); follower = own.Follow(); mirror.Begin() },
			"": func(t *rapid.T) {
				if len(own.followers) != 1 || !maps.Equal(mirror.topics, sizes(mirror.values)) || !maps.Equal(own.topics, sizes(own.values)) {
					t.Fatal("followers, keys or bytes are not counted right")
				}
			},
		})
		for follower.Lacks() {
			read(1 << 20)
		}
		for _, got := range []map[address]value{mirror.values, told} {
			if d := cmp.Diff(own.values, got, cmp.AllowUnexported(address{}, value{})); d != "" {
				t.Fatal(d)
			}
		}
	})
}

func sizes(values map[address]value) map[string]size {
	out := map[string]size{}
	for at, v := range values {
		out[at.topic] = size{out[at.topic].keys + 1, out[at.topic].bytes + len(v.data)}
	}
	return out
}

// A follower that reads nothing costs one entry for each key.
func TestFollowerHasEachKeyOnce(t *testing.T) {
	own := NewOwn()
	follower := own.Follow()
	for i := range 1000 {
		if err := own.Set("load", fmt.Sprint(i%3), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(follower.queue) != 3 {
		t.Errorf("%d entries wait", len(follower.queue))
	}
	updates, whole := follower.Next(1 << 20)
	if len(updates) != 3 || !whole || string(updates[0].Value) != "999" {
		t.Errorf("sent %v, whole %v", updates, whole)
	}
}

// A value beyond a limit is unknown, and so is an earlier one. One topic takes no room from another.
func TestLimits(t *testing.T) {
	own := NewOwn()
	if err := own.Set("t", "k", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := own.Set("t", "k", make([]byte, MaxValueBytes+1)); err == nil || !own.values[address{"t", "k"}].unknown {
		t.Errorf("a value over the limit: %v, and the others have %v", err, own.values)
	}
	if err := own.Set("t", "k", []byte("1")); err != nil || own.values[address{"t", "k"}].unknown {
		t.Errorf("a value that is small again is not told: %v", err)
	}
	own.Delete("t", "k")
	if err := own.Set("t", strings.Repeat("k", MaxKeyBytes+1), nil); err == nil {
		t.Error("a key over the limit was taken")
	}
	for i := range MaxKeys {
		if err := own.Set("t", fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := own.Set("t", "one more", nil); err == nil {
		t.Error("a key beyond the number of keys was taken")
	}
	if err := own.Set("other", "one more", nil); err != nil {
		t.Errorf("a topic with many keys takes the place of another: %v", err)
	}
	own = NewOwn()
	for i := range MaxBytes / MaxValueBytes {
		if err := own.Set("t", fmt.Sprint(i), bytes.Repeat([]byte{1}, MaxValueBytes)); err != nil {
			t.Fatal(err)
		}
	}
	if err := own.Set("t", "one more", []byte("1")); err == nil || !own.values[address{"t", "one more"}].unknown {
		t.Error("a value beyond all bytes was taken, or the others do not know of it")
	}
	if err := own.Set("other", "one more", []byte("1")); err != nil {
		t.Errorf("a topic with many bytes takes the place of another: %v", err)
	}
	_, err := NewMirror().Apply(Frame{Updates: []Update{{Topic: "t", Key: "k", Value: make([]byte, MaxValueBytes+1)}}}, all)
	if err == nil {
		t.Error("a Mirror took a value over the limit")
	}
	mirror := NewMirror()
	if updates, err := mirror.Apply(Frame{Updates: []Update{{Topic: "t", Key: "k"}}}, func(string) bool { return false }); err != nil || len(updates) > 0 || len(mirror.values) > 0 {
		t.Error("a Mirror keeps a topic that nobody reads")
	}
}

// A replica that started again may have other keys than before, as many and as large as a topic takes. Until its maps are
// whole a Mirror has both, and no more than that.
func TestMirrorHasRoomForTwoProcesses(t *testing.T) {
	for what, one := range map[string]struct {
		keys int
		data []byte
	}{"keys": {MaxKeys, nil}, "bytes": {MaxBytes / MaxValueBytes, make([]byte, MaxValueBytes)}} {
		updates := func(process string, n int) (out []Update) {
			for i := range n {
				out = append(out, Update{Topic: "t", Key: process + fmt.Sprint(i), Value: one.data})
			}
			return out
		}
		mirror := NewMirror()
		for _, process := range []string{"first ", "second "} {
			mirror.Begin()
			if _, err := mirror.Apply(Frame{Updates: updates(process, one.keys), Whole: true}, all); err != nil {
				t.Fatalf("%s of the %sprocess: %v", what, process, err)
			}
		}
		if len(mirror.values) != one.keys {
			t.Errorf("%s: it has %d values, not the %d of the second process", what, len(mirror.values), one.keys)
		}
		if _, err := mirror.Apply(Frame{Updates: updates("third ", one.keys+1)}, all); err == nil {
			t.Errorf("%s: more than those of two processes were taken", what)
		}
	}
}

func TestPresence(t *testing.T) {
	var p Presence
	tick := func(n int) []Change {
		var out []Change
		for range n {
			if c := p.Tick(); c != NoChange {
				out = append(out, c)
			}
		}
		return out
	}
	expect := func(what string, got []Change, want ...Change) {
		t.Helper()
		if !cmp.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%s: %v, not %v", what, got, want)
		}
	}
	expect("a replica that was never heard", tick(SilentTicks*2))
	expect("a Frame that is not the last of all", p.Frame(Frame{}))
	expect("the last", p.Frame(Frame{Whole: true}), NowHeard)
	expect("a heartbeat is late", tick(SilentTicks-1))
	expect("a heartbeat", p.Frame(Frame{}))
	expect("three are missing", tick(SilentTicks), NowSilent)
	expect("heartbeats of a connection that was not cut off", p.Frame(Frame{}))
	expect("a new connection", p.Frame(Frame{Whole: true, Leaving: true}), NowHeard, NowLeaving)
	expect("still leaving", p.Frame(Frame{Leaving: true}))
	expect("its process ends", []Change{p.Refused()}, NowSilent)
	expect("it was only slow, and stops", p.Frame(Frame{Whole: true, Leaving: true}), NowHeard, NowLeaving)
	expect("it ends", []Change{p.Refused()}, NowSilent)
	expect("ten minutes", tick(GoneTicks), NowGone)
}

// Replicas are the pods of the Service's slices, each once, in a cluster of two families too.
func TestPeersOf(t *testing.T) {
	endpoint := func(kind, name string, addresses ...string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: addresses, TargetRef: &corev1.ObjectReference{Kind: kind, Name: name}}
	}
	slice := func(port string, endpoints ...discoveryv1.Endpoint) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: &port, Port: ptr.To[int32](18003)}}, Endpoints: endpoints}
	}
	got := PeersOf([]discoveryv1.EndpointSlice{
		slice("replicas", endpoint("Pod", "hub-b", "fd00::2"), endpoint("Pod", "hub-a", "fd00::1")),
		slice("replicas", endpoint("Pod", "hub-b", "10.0.0.2"), endpoint("Node", "n", "10.0.0.9"), endpoint("Pod", "hub-c"), discoveryv1.Endpoint{Addresses: []string{"10.0.0.8"}}),
		slice("other", endpoint("Pod", "hub-d", "10.0.0.4")),
	})
	want := []Peer{{Name: "hub-a", Address: "[fd00::1]:18003"}, {Name: "hub-b", Address: "10.0.0.2:18003"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
