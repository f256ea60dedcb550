package server

import "testing"

// An edge is named by its first request, which may still be processed when its stream
// has ended. It then takes the place of no edge.
func TestNoClaimAfterTheEnd(t *testing.T) {
	p := newPool("us", 1, func(string) {})
	ended, later := &session{service: configuration}, &session{service: configuration}
	p.release(ended)
	if _, err := p.claim(ended, Edge{Node: "envoy-0"}); err == nil {
		t.Error("a stream that has ended is an edge")
	}
	if _, err := p.claim(later, Edge{Node: "envoy-1"}); err != nil {
		t.Errorf("another edge is refused: %v", err)
	}
}
