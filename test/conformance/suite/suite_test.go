package suite

import (
	"fmt"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
)

// TestConformance is the suite as its own module runs it: options are the
// suite's flags, the timeouts are the suite's defaults.
func TestConformance(t *testing.T) { conformance.RunConformance(t) }

// TestList prints one line for each test of the suite: its name and the
// features that it needs.
func TestList(t *testing.T) {
	for _, test := range tests.ConformanceTests {
		line := "test " + test.ShortName
		for _, f := range test.Features {
			line += " " + string(f)
		}
		fmt.Println(line)
	}
}
