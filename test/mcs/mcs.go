package mcs

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

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/kubelet"
)

// Config says where the results go.
type Config struct {
	// Dir gets the suite's report (report.yaml, report.html), its output and the logs of
	// the lab's programs.
	Dir string
	Out io.Writer
	// Args are further flags of the suite, like -ginkgo.focus.
	Args []string
}

// maxRun ends a run that hangs. The suite's own timeouts end each spec long before.
const maxRun = 30 * time.Minute

// images are those of the suite's pods: a server and a client with shell, nc and dig.
var images = kubelet.Images{
	"alpine/socat":      {Entrypoint: []string{"socat"}},
	"nicolaka/netshoot": {Cmd: []string{"sh"}},
}

// Prepare builds the suite; see lab.Entry.
func Prepare(ctx context.Context, progress io.Writer) error {
	_, err := install.MCSConformance(ctx, progress)
	return err
}

// Run starts a lab, runs the suite in it and returns nil if every spec ran and passed. It
// must run inside the lab's namespaces.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	if err := errors.Join(os.RemoveAll(cfg.Dir), os.MkdirAll(cfg.Dir, 0o755)); err != nil { // of an earlier run
		return err
	}
	suite, err := install.MCSConformance(ctx, cfg.Out)
	if err != nil {
		return err
	}
	fleet, err := lab.Start(ctx, lab.Config{Members: lab.Members[:2], LogDir: filepath.Join(cfg.Dir, "logs"), Images: images}, cfg.Out)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if err := fleet.Install(ctx, lab.InstallOptions{}); err != nil {
		return err
	}
	names, err := writeKubeconfig(fleet, filepath.Join(cfg.Dir, "kubeconfig"))
	if err != nil {
		return err
	}
	output := filepath.Join(cfg.Dir, "output.txt")
	fmt.Fprintf(cfg.Out, "the lab is ready; the suite runs for about 5 minutes, its output is in %s ...\n", output)
	err = runSuite(ctx, cfg, suite, output, names)
	text, reportErr := os.ReadFile(filepath.Join(cfg.Dir, "report.yaml"))
	if reportErr != nil {
		return errors.Join(err, reportErr)
	}
	passed, reportErr := checkReport(text)
	fmt.Fprintf(cfg.Out, "%d specs passed\n", passed)
	return errors.Join(err, reportErr)
}

// writeKubeconfig writes a kubeconfig with a context for each member, and returns their names.
func writeKubeconfig(fleet *lab.Lab, file string) (names []string, err error) {
	all := clientcmdapi.NewConfig()
	for _, m := range lab.Members[:2] {
		c := fleet.Members[m.Name]
		one := c.KubeconfigFor(c.REST.Host)
		all.Clusters[c.Name], all.AuthInfos[c.Name], all.Contexts[c.Name] = one.Clusters[c.Name], one.AuthInfos[c.Name], one.Contexts[c.Name]
		names = append(names, c.Name)
	}
	return names, clientcmd.WriteToFile(*all, file)
}

// runSuite runs the suite in cfg.Dir, where it writes its report.
func runSuite(ctx context.Context, cfg Config, suite, output string, contexts []string) error {
	log, err := os.Create(output)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"-kubeconfig=kubeconfig", "-contexts=" + strings.Join(contexts, ","), "-test.timeout=0", "-ginkgo.no-color",
		"-organization=crossway", "-project=crossway", "-url=https://crossway.dev/crossway"}, cfg.Args...)
	cmd := exec.CommandContext(ctx, suite, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = cfg.Dir, log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the suite's program: %w", err)
	}
	return nil
}

// report is what the suite writes of each spec.
type report struct {
	Groups []struct {
		Name  string
		Tests []struct {
			Desc                                string
			Passed, Failed, Skipped, Conformant bool
			Message                             string
		}
	}
}

// checkReport counts the specs that passed, and names those that did not.
func checkReport(text []byte) (passed int, err error) {
	var r report
	if err := yaml.Unmarshal(text, &r); err != nil {
		return 0, fmt.Errorf("the suite's report: %w", err)
	}
	var failed []error
	for _, group := range r.Groups {
		for _, t := range group.Tests {
			if t.Passed && t.Conformant && !t.Failed && !t.Skipped {
				passed++
			} else {
				failed = append(failed, fmt.Errorf("%s: %s did not pass: %s", group.Name, t.Desc, t.Message))
			}
		}
	}
	if passed == 0 {
		failed = append(failed, errors.New("no spec passed"))
	}
	return passed, errors.Join(failed...)
}
