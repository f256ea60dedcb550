package memberapi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Of objects that changed some time ago only what they are made from is kept, and they are read as they were.
func TestOldObjectsAreNotKeptEncoded(t *testing.T) {
	s := New(Start(noon, 7), nil)
	text := bytes.Repeat([]byte{'x'}, 64<<10)
	const objects = 1000
	for i := range objects {
		s.set(s.Slices, fleet.ObjectName{Namespace: "shop", Name: fmt.Sprint(i)}, func() content {
			return content{rest: fmt.Appendf(text[:len(text):len(text)], "%d", i)}
		}, content{}, &Touched{})
	}
	kept, total := 0, 0
	for i := range objects {
		o := s.Slices.Get(fleet.ObjectName{Namespace: "shop", Name: fmt.Sprint(i)})
		kept += len(o.content.rest)
		total += o.size
		if !bytes.HasSuffix(o.encoded().rest, fmt.Append(nil, i)) {
			t.Fatalf("object %d ends with %q", i, o.encoded().rest[len(text):])
		}
	}
	if kept > maxEncoded || kept < maxEncoded/2 || total < objects*len(text) {
		t.Errorf("%d of %d bytes are kept", kept, total)
	}
}

// A version of another replica, or one before a deletion that is forgotten, is expired: its reader would miss changes.
func TestExpiredVersions(t *testing.T) {
	s, later := New(Start(noon, 7), nil), New(Start(noon, 9), nil)
	name := fleet.ObjectName{Namespace: "shop", Name: "web"}
	member := model{}
	for _, state := range []*State{s, later} {
		members := []v1alpha1.MemberCluster{member.member("a", "shop")}
		state.Apply(Changes{Members: &members}, noon)
	}
	write := func(state *State, text string) {
		state.set(state.Slices, name, func() content { return content{rest: []byte(text)} }, content{}, &Touched{})
	}
	read := func(version uint64) error {
		_, _, err := ResumedWatch(s.Reader("a"), s.Slices, "", version).Next(s)
		return err
	}
	write(s, "1")
	write(later, "1")
	before := s.Version()
	write(s, "2")
	if err := read(before); err != nil {
		t.Errorf("its own version: %v", err)
	}
	if err := read(later.Version()); !errors.Is(err, ErrExpired) {
		t.Errorf("another replica's version, within its own: %v", err)
	}
	if err := read(s.Version() + versionStep); !errors.Is(err, ErrExpired) {
		t.Errorf("a version that is yet to come: %v", err)
	}
	s.remove(s.Slices, name, noon, &Touched{})
	s.Apply(Changes{}, noon.Add(deletedAge-1))
	if err := read(before); err != nil {
		t.Errorf("before a deletion that is remembered: %v", err)
	}
	s.Apply(Changes{}, noon.Add(deletedAge))
	if err := read(before); !errors.Is(err, ErrExpired) {
		t.Errorf("before a deletion that is forgotten: %v", err)
	}
}
