package conformance

import (
	"errors"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// report is the part of the suite's ConformanceReport that is checked here.
type report struct {
	GatewayAPIVersion string `json:"gatewayAPIVersion"`
	GatewayAPIChannel string `json:"gatewayAPIChannel"`
	Profiles          []struct {
		Name     string      `json:"name"`
		Summary  string      `json:"summary"`
		Core     resultCount `json:"core"`
		Extended struct {
			resultCount       `json:",inline"`
			SupportedFeatures []string `json:"supportedFeatures"`
		} `json:"extended"`
	} `json:"profiles"`
}

type resultCount struct {
	Result     string `json:"result"`
	Statistics struct{ Passed, Failed, Skipped int }
}

func readReport(file string) (report, error) {
	var r report
	data, err := os.ReadFile(file)
	if err != nil {
		return r, fmt.Errorf("the suite wrote no report: %w", err)
	}
	if err := yaml.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("report %s: %w", file, err)
	}
	return r, nil
}

// check compares the report with the plan. A report can be written before all
// tests have run; it then counts too few.
func (r report) check(p testPlan, claimed []string) error {
	if len(r.Profiles) != 1 || r.Profiles[0].Name != Profile {
		return fmt.Errorf("the report has %d profiles, want %s alone", len(r.Profiles), Profile)
	}
	profile := r.Profiles[0]
	errs := []error{profile.Core.check("core", p.core), profile.Extended.check("extended", p.extended)}
	for _, f := range without(claimed, append(coreFeatures(), profile.Extended.SupportedFeatures...)) {
		errs = append(errs, fmt.Errorf("the report does not list feature %s, which the GatewayClass claims", f))
	}
	return errors.Join(errs...)
}

func (c resultCount) check(level string, planned int) error {
	s := c.Statistics
	if planned == 0 && s.Passed+s.Failed+s.Skipped == 0 {
		return nil
	}
	if c.Result != "success" || s.Passed != planned || s.Failed+s.Skipped > 0 {
		return fmt.Errorf("%s: %s, %d tests passed, %d failed, %d skipped; want %d passed", level, c.Result, s.Passed, s.Failed, s.Skipped, planned)
	}
	return nil
}
