package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/kubelet"
)

// Config says what is run and where the results go.
type Config struct {
	// Core claims the core features of the profile only.
	Core bool
	// Test, where set, runs this test alone, whatever is claimed, without a
	// report.
	Test string
	// Report is the file for the suite's report. Log, a file, takes the suite's
	// output; LogDir, a directory, the logs of the lab's programs.
	Report, Log, LogDir string
	// Implementation is what the report says of Crossway.
	Implementation Implementation
	Out            io.Writer
}

// Implementation is the head of a report.
type Implementation struct{ Organization, Project, URL, Version, Contact string }

// gatewayClass is the class of the suite's Gateways: Gateways of the whole
// fleet, which the charts make by default.
const gatewayClass = "crossway-global"

// maxRun ends a run that hangs. The suite's own timeouts end each test long
// before.
const maxRun = time.Hour

// Prepare builds the suite and the programs of its pods; see lab.Entry.
func Prepare(ctx context.Context, progress io.Writer) error {
	_, err := install.Conformance(ctx, progress)
	return err
}

// Run starts a lab, runs the suite in it and returns nil if every planned test
// passed and the report says so. It must run inside the lab's namespaces.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	if err := errors.Join(os.RemoveAll(cfg.Report), os.RemoveAll(cfg.LogDir)); err != nil { // of an earlier run
		return err
	}
	programs, err := install.Conformance(ctx, cfg.Out)
	if err != nil {
		return err
	}
	begin := time.Now()
	fleet, err := startLab(ctx, cfg, programs)
	if err != nil {
		return err
	}
	defer fleet.Close()
	claimed, err := claimedFeatures(ctx, fleet.Hub)
	if err != nil {
		return err
	}
	if missing := without(coreFeatures(), claimed); len(missing) > 0 {
		return fmt.Errorf("GatewayClass %s does not claim the core features %s", gatewayClass, strings.Join(missing, ", "))
	}
	if cfg.Core {
		claimed = coreFeatures()
	}
	tests, err := listTests(ctx, programs.Suite)
	if err != nil {
		return err
	}
	plan := planOf(tests, claimed)
	if cfg.Test != "" {
		plan = testPlan{run: map[string]bool{cfg.Test: true}}
	} else {
		plan.print(cfg.Out, cfg.Core)
	}
	fmt.Fprintf(cfg.Out, "the lab is ready after %s; running the suite ...\n", time.Since(begin).Round(time.Second))
	r, err := runSuite(ctx, cfg, suiteRun{program: programs.Suite, kubeconfig: fleet.Hub.Kubeconfig, plan: plan})
	return finish(cfg, r, claimed, errors.Join(err, ctx.Err()))
}

// startLab starts the smallest lab that serves the suite: the hub's cluster and
// one member, whose region has the Envoys.
func startLab(ctx context.Context, cfg Config, programs install.ConformancePrograms) (*lab.Lab, error) {
	fleet, err := lab.Start(ctx, lab.Config{
		Members: lab.Members[:1],
		LogDir:  cfg.LogDir,
		Images:  kubelet.Images{"gateway-api/echo-basic": kubelet.Program(programs.Echo)},
	}, cfg.Out)
	if err != nil {
		return nil, err
	}
	if err := fleet.Install(ctx, lab.InstallOptions{}); err != nil {
		fleet.Close()
		return nil, err
	}
	return fleet, nil
}

// claimedFeatures are those of the accepted GatewayClass.
func claimedFeatures(ctx context.Context, hub *lab.Cluster) ([]string, error) {
	if _, err := hub.Kubectl(ctx, nil, "wait", "gatewayclass/"+gatewayClass, "--for=condition=Accepted", "--timeout=60s"); err != nil {
		return nil, err
	}
	out, err := hub.Kubectl(ctx, nil, "get", "gatewayclass", gatewayClass, "-o", `jsonpath={.status.supportedFeatures[*].name}`)
	return strings.Fields(out), err
}

func listTests(ctx context.Context, program string) ([]suiteTest, error) {
	out, err := exec.CommandContext(ctx, program, "-test.run=^TestList$").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of the suite: %w", err)
	}
	tests := parseTests(string(out))
	if len(tests) == 0 {
		return nil, errors.New("the suite lists no tests")
	}
	return tests, nil
}

// suiteRun is one run of the suite's program.
type suiteRun struct {
	program, kubeconfig string
	plan                testPlan
}

// args are the suite's flags. Without -supported-features it reads the claims
// from the GatewayClass itself.
func (cfg Config) args() []string {
	args := []string{"-test.run=^" + rootTest + "$", "-test.v=test2json", "-test.timeout=0", "-gateway-class=" + gatewayClass, "-conformance-profiles=" + Profile}
	if cfg.Core {
		args = append(args, "-supported-features="+strings.Join(coreFeatures(), ","))
	}
	if cfg.Test != "" {
		return append(args, "-run-test="+cfg.Test)
	}
	i := cfg.Implementation
	return append(args, "-report-output="+cfg.Report, "-organization="+i.Organization, "-project="+i.Project, "-url="+i.URL, "-version="+i.Version, "-contact="+i.Contact)
}

func runSuite(ctx context.Context, cfg Config, s suiteRun) (*recorder, error) {
	for _, file := range []string{cfg.Report, cfg.Log} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(cfg.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, s.program, cfg.args()...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig)
	cmd.Stderr = log
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := newRecorder(s.plan, cfg.Out, log)
	err = r.read(output)
	if waitErr := cmd.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("the suite's program: %w", waitErr))
	}
	return r, err
}

// finish prints the results and says what is wrong with them.
func finish(cfg Config, r *recorder, claimed []string, err error) error {
	if r == nil {
		return err
	}
	r.printFailures(cfg.Out)
	if failed := r.notPassed(); len(failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d tests did not pass: %s", len(failed), len(r.plan.run), strings.Join(failed, ", ")))
	}
	passed := len(r.plan.run) - len(r.notPassed())
	fmt.Fprintf(cfg.Out, "\n%d of %d tests passed; the suite's output: %s\n", passed, len(r.plan.run), cfg.Log)
	if cfg.Test != "" {
		return err
	}
	rep, reportErr := readReport(cfg.Report)
	if reportErr != nil {
		return errors.Join(err, reportErr)
	}
	if len(rep.Profiles) > 0 {
		fmt.Fprintf(cfg.Out, "report %s (Gateway API %s, %s channel): %s\n", cfg.Report, rep.GatewayAPIVersion, rep.GatewayAPIChannel, rep.Profiles[0].Summary)
	}
	return errors.Join(err, rep.check(r.plan, claimed))
}
