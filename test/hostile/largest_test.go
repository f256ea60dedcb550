package hostile

import (
	"fmt"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What a slice of a member takes at most in etcd besides its metadata, in bytes, is in docs/security.md ("What the limits
// allow"): 100 endpoints and 100 ports with the longest texts that the API server takes. One more of each is refused.
func TestLargestSlice(t *testing.T) {
	const most = 57 << 10
	h := newHub(t, "largest-west", usual)
	long := func(n int) string { return strings.Repeat("x", n) }
	label := func(i int) string { return fmt.Sprintf("%s%03d", long(60), i) }
	appProtocol := strings.Join([]string{long(63), long(63), long(63), long(61)}, ".") + "/" + long(63)
	slice := func(n int) client.Object {
		o := h.slice("largest", 0, "")
		var endpoints, ports []any
		for i := range n {
			endpoints = append(endpoints, map[string]any{"addresses": []any{fmt.Sprintf("fd10:1111:2222:3333:4444:5555:6666:%04x", 0x1000+i)}, "zone": long(63),
				"hostname": label(i), "conditions": map[string]any{"ready": true, "serving": true, "terminating": true}})
			ports = append(ports, map[string]any{"name": label(i), "port": int64(65535 - i), "protocol": "SCTP", "appProtocol": appProtocol})
		}
		o.Object["addressType"], o.Object["endpoints"], o.Object["ports"] = "IPv6", endpoints, ports
		return o
	}
	h.refused("one more", h.agent.Create(t.Context(), slice(101)), "at most 100 endpoints and 100 ports")
	longer := slice(100)
	longer.(interface{ UnstructuredContent() map[string]any }).UnstructuredContent()["endpoints"].([]any)[0].(map[string]any)["zone"] = long(64)
	h.refused("a longer zone", h.agent.Create(t.Context(), longer), "zone")
	h.Must(h.agent.Create(t.Context(), slice(100)))
	var stored discoveryv1.EndpointSlice
	h.Must(h.admin.Get(t.Context(), client.ObjectKeyFromObject(longer), &stored))
	stored.ObjectMeta = metav1.ObjectMeta{}
	if size := stored.Size(); size > most || size < most-4<<10 {
		t.Errorf("the largest slice is %d bytes, want %d to %d: mend docs/security.md", size, most-4<<10, most)
	} else {
		t.Logf("the largest slice is %d bytes besides its metadata", size)
	}
}
