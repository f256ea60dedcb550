package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"crossway.dev/crossway/charts"
)

// keptRevisions is how many revisions of a release Helm keeps.
const keptRevisions = 10

// chartRelease is one of Crossway's charts in a cluster, as `helm install NAME CHART`
// makes it: helm lists it, and may upgrade or uninstall it.
type chartRelease struct {
	name, chart string
	values      map[string]any // besides those of the release's last revision
}

// valueFlags adds Helm's flags for values to a command.
func valueFlags(c *cobra.Command) *values.Options {
	v := &values.Options{}
	f := c.Flags()
	f.StringSliceVarP(&v.ValueFiles, "values", "f", nil, "file with values of the chart (repeatable); those of the last installation stay")
	f.StringArrayVar(&v.Values, "set", nil, "value of the chart, like image.repository=registry.example/crossway/hub (repeatable)")
	return v
}

// helm is Helm in the namespace of a cluster.
func helm(flags *genericclioptions.ConfigFlags) (*action.Configuration, error) {
	h := &action.Configuration{}
	silent := func(string, ...any) {}
	if err := h.Init(flags, *flags.Namespace, "", silent); err != nil {
		return nil, fmt.Errorf("prepare Helm: %w", err)
	}
	return h, nil
}

// hasRelease tells whether a release exists.
func hasRelease(flags *genericclioptions.ConfigFlags, name string) (bool, error) {
	h, err := helm(flags)
	if err != nil {
		return false, err
	}
	_, err = h.Releases.Last(name)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read release %s: %w", name, err)
	}
	return true, nil
}

// installRelease installs a chart or brings its release up to date.
func installRelease(ctx context.Context, flags *genericclioptions.ConfigFlags, r chartRelease) (did string, err error) {
	h, err := helm(flags)
	if err != nil {
		return "", err
	}
	c, err := loadChart(r.chart)
	if err != nil {
		return "", err
	}
	last, err := h.Releases.Last(r.name)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		return didInstall, r.explain(r.install(ctx, h, c, *flags.Namespace))
	case err != nil:
		return "", fmt.Errorf("read release %s: %w", r.name, err)
	case last.Info.Status.IsPending():
		return "", fmt.Errorf("release %s is %s: somebody installs it now, or was stopped; if nobody does, run helm -n %s uninstall %s, and this again", r.name, last.Info.Status, *flags.Namespace, r.name)
	}
	upgrade := action.NewUpgrade(h)
	upgrade.Namespace, upgrade.ResetThenReuseValues, upgrade.SkipCRDs, upgrade.MaxHistory = *flags.Namespace, true, true, keptRevisions
	now, err := upgrade.RunWithContext(ctx, r.name, c, r.values)
	if err != nil {
		return "", r.explain(err)
	}
	if last.Info.Status == release.StatusDeployed && last.Manifest == now.Manifest {
		return didNothing, nil
	}
	return didUpdate, nil
}

func (r chartRelease) install(ctx context.Context, h *action.Configuration, c *chart.Chart, namespace string) error {
	install := action.NewInstall(h)
	install.ReleaseName, install.Namespace, install.CreateNamespace, install.SkipCRDs = r.name, namespace, true, true
	_, err := install.RunWithContext(ctx, c, r.values)
	return err
}

// explain says which chart an error of Helm is about, without the path of the template.
func (r chartRelease) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, failed, ok := strings.Cut(err.Error(), "execution error at ("); ok { // the chart's own words, after a path
		if _, reason, ok := strings.Cut(failed, "): "); ok {
			return fmt.Errorf("chart %s: %s", r.chart, reason)
		}
	}
	return fmt.Errorf("install chart %s: %w", r.chart, err)
}

// uninstallRelease removes a release; done is false if there is none.
func uninstallRelease(flags *genericclioptions.ConfigFlags, name string) (done bool, err error) {
	h, err := helm(flags)
	if err != nil {
		return false, err
	}
	_, err = action.NewUninstall(h).Run(name)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("uninstall release %s: %w", name, err)
	}
	return true, nil
}

// loadChart reads a chart that is part of this program.
func loadChart(name string) (*chart.Chart, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(charts.FS, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := charts.FS.ReadFile(path)
		files = append(files, &loader.BufferedFile{Name: strings.TrimPrefix(path, name+"/"), Data: text})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", name, err)
	}
	return loader.LoadFiles(files)
}
