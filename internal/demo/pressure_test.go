package demo

import (
	"regexp"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	waited, known := waitedForCPU()
	got := duration(time.Now().Add(-time.Second), waited)
	if known != regexp.MustCompile(`^1s; processes waited for a CPU in \d+ % of it$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
}
