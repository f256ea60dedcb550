package mcs

import (
	"strings"
	"testing"
)

// A spec that was skipped, failed, or is not conformant is an error that names it.
func TestCheckReport(t *testing.T) {
	const one = "- desc: %\n  passed: PASSED\n  failed: FAILED\n  skipped: SKIPPED\n  conformant: CONFORMANT\n"
	spec := func(name string, passed, failed, skipped, conformant string) string {
		return strings.NewReplacer("%", name, "PASSED", passed, "FAILED", failed, "SKIPPED", skipped, "CONFORMANT", conformant).Replace(one)
	}
	good := spec("good", "true", "false", "false", "true")
	for _, c := range []struct {
		specs  string
		passed int
		names  string // in the error; empty: none
	}{
		{good + good, 2, ""},
		{"", 0, "no spec passed"},
		{good + spec("bad", "false", "true", "false", "true"), 1, "bad"},
		{good + spec("skipped", "false", "false", "true", "false"), 1, "skipped"},
		{good + spec("lax", "true", "false", "false", "false"), 1, "lax"},
	} {
		passed, err := checkReport([]byte("groups:\n- name: Required\n  tests:\n  " + strings.ReplaceAll(strings.TrimSuffix(c.specs, "\n"), "\n", "\n  ")))
		if passed != c.passed || (err != nil) != (c.names != "") || err != nil && !strings.Contains(err.Error(), c.names) {
			t.Errorf("%q: %d passed, %v", c.specs, passed, err)
		}
	}
}
