package replica

import (
	"bytes"
	"strings"
	"testing"
)

// A large value fits after Pack, and comes out as it was. What is no value of Pack is an error, and bounded.
func TestPack(t *testing.T) {
	for _, value := range []string{"", `{"v":1}`, strings.Repeat(`{"a":"httproute/shop/web"}`, 3*MaxValueBytes/26)} {
		packed := Pack([]byte(value))
		if got, err := Unpack(packed); err != nil || string(got) != value || len(packed) > MaxValueBytes {
			t.Errorf("a value of %d bytes has %d, and then %d: %v", len(value), len(packed), len(got), err)
		}
	}
	packed := Pack(make([]byte, packedFrom))
	if _, err := Unpack(packed[:len(packed)/2]); err == nil {
		t.Error("half a value is read")
	}
	if got, err := Unpack(Pack(bytes.Repeat([]byte{1}, maxUnpacked+1))); err == nil || len(got) > 0 {
		t.Errorf("a value expands to %d bytes: %v", len(got), err)
	}
}
