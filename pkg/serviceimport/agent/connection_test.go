package agent

import (
	"fmt"
	"testing"

	"github.com/go-logr/logr/funcr"
)

// Trouble is one line, however its text differs from try to try, and its end is one.
func TestTroubleIsLoggedOnce(t *testing.T) {
	var lines int
	c := newConnection(nil, nil, "")
	c.logger = funcr.New(func(string, string) { lines++ }, funcr.Options{})
	want := func(when string, n int) {
		t.Helper()
		if lines != n {
			t.Errorf("%s there are %d lines, want %d", when, lines, n)
		}
	}
	c.log("")
	want("without trouble", 0)
	for port := range 100 {
		c.log(fmt.Sprintf("read tcp 10.0.0.1:%d: connection reset by peer", 40000+port))
	}
	want("after 100 tries", 1)
	c.log("")
	want("at its end", 2)
	for range 100 { // one of two informers has trouble, and the other has none
		c.log("503")
		c.log("")
	}
	want("while it comes and goes", 2)
}
