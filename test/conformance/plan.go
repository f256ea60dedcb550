package conformance

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/gateway-api/pkg/features"
)

// Profile is the conformance profile that is run.
const Profile = "GATEWAY-HTTP"

// coreFeatures and extendedFeatures are what the profile consists of. The suite
// has the same lists, in a module that the product does not depend on.
func coreFeatures() []string {
	return featureNames(features.SupportGateway, features.SupportHTTPRoute, features.SupportReferenceGrant)
}

func extendedFeatures() []string {
	return featureNames(features.SetsToNamesSet(
		features.GatewayExtendedFeatures, features.HTTPRouteExtendedFeatures,
		features.BackendTLSPolicyCoreFeatures, features.BackendTLSPolicyExtendedFeatures,
	).UnsortedList()...)
}

func featureNames(list ...features.FeatureName) []string {
	var names []string
	for _, name := range list {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// suiteTest is one test of the suite and the features that it needs.
type suiteTest struct {
	name     string
	features []string
}

// parseTests reads what the suite's TestList prints.
func parseTests(output string) []suiteTest {
	var tests []suiteTest
	for line := range strings.Lines(output) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "test" {
			tests = append(tests, suiteTest{fields[1], fields[2:]})
		}
	}
	return tests
}

// testPlan is what a run must show, computed from the claimed features.
type testPlan struct {
	run            map[string]bool     // names of the tests that run
	core, extended int                 // how many of them the profile counts
	skipped        map[string][]string // tests that do not run, by the features that are not claimed
}

func planOf(tests []suiteTest, claimed []string) testPlan {
	p := testPlan{run: map[string]bool{}, skipped: map[string][]string{}}
	core, profile := coreFeatures(), append(coreFeatures(), extendedFeatures()...)
	for _, test := range tests {
		if missing := without(test.features, claimed); len(missing) > 0 {
			reason := strings.Join(missing, ", ")
			p.skipped[reason] = append(p.skipped[reason], test.name)
			continue
		}
		p.run[test.name] = true
		switch {
		case len(without(test.features, core)) == 0:
			p.core++
		case len(without(test.features, profile)) == 0:
			p.extended++
		}
	}
	return p
}

// without are the elements of list that are not in others.
func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// print says what runs, and lists what does not and why. Where only core
// features are claimed, that is nearly everything, and the list is left out.
func (p testPlan) print(out io.Writer, core bool) {
	skipped := 0
	for _, names := range p.skipped {
		skipped += len(names)
	}
	fmt.Fprintf(out, "%d tests of profile %s run, %d of them core; ", len(p.run), Profile, p.core)
	if core {
		fmt.Fprintf(out, "%d need more than the profile's core features\n", skipped)
		return
	}
	fmt.Fprintf(out, "%d do not, because the GatewayClass does not claim\n", skipped)
	for _, reason := range slices.Sorted(maps.Keys(p.skipped)) {
		fmt.Fprintf(out, "  %s: %s\n", reason, strings.Join(p.skipped[reason], ", "))
	}
}
