package gateway

import (
	"strings"
	"testing"
	"time"
)

// A pattern that would be huge once its repetitions are written out is refused
// before that.
func TestHugeRegexIsRefusedAtOnce(t *testing.T) {
	pattern := "(?:" + strings.Repeat("[a-z]b", 680) + "){1000}"
	began := time.Now()
	problem := new(regexes).problem(pattern)
	if took := time.Since(began); !strings.Contains(problem, "too large") || took > 50*time.Millisecond {
		t.Errorf("%v: %.200s", took, problem)
	}
}
