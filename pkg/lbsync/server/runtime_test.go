package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// The more endpoints an edge has, the less often outlier detection looks at all of them.
func TestEjectionInterval(t *testing.T) {
	for size, want := range map[int]time.Duration{
		0: 500 * time.Millisecond, 512 << 10: 500 * time.Millisecond, 512<<10 + 1: time.Second, 2 << 20: 2 * time.Second, 8 << 20: 8 * time.Second, 1 << 30: 8 * time.Second,
	} {
		if got := ejectionInterval(size); got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}

// The interval of a pool follows the load assignments that its clusters use, up and down.
func TestIntervalFollowsLoadAssignments(t *testing.T) {
	p := newPool("us", 1, func(string) {})
	large, small := []byte(strings.Repeat("x", 3<<20)), []byte("x")
	p.setResources(Snapshot{Clusters: []Resource{{Name: "a", Version: "1", Body: &anypb.Any{}}}})
	for i, body := range [][]byte{small, large, small} {
		p.updateLoadAssignments([]Resource{{Name: "a", Version: fmt.Sprint(i), Body: &anypb.Any{Value: body}}, {Name: "of another pool", Version: "1", Body: &anypb.Any{Value: large}}}, nil)
		p.clusterSizes()
		want := minInterval
		if len(body) > len(small) {
			want = 4 * time.Second
		}
		if p.interval != want {
			t.Errorf("with %d bytes %s, want %s", len(body), p.interval, want)
		}
	}
}
