package memberapi

import (
	"bytes"
	"fmt"
	"testing"

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
