package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v3/pkg/cli/values"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	hubRelease    = "crossway-hub" // of charts/hub, and of its Deployment
	kubernetesMin = "1.31.0"       // the CRDs validate CIDRs in CEL
)

func hubCommand(a *app) *cobra.Command {
	return group("hub", "The hub: the cluster that holds the fleet's configuration", hubInitCommand(a), rotateCACommand(a))
}

// initOptions are the flags of `crossway hub init`.
type initOptions struct {
	*app
	values *values.Options
	wait   time.Duration
	output *output
}

func hubInitCommand(a *app) *cobra.Command {
	o := &initOptions{app: a}
	c := &cobra.Command{
		Use:   "init",
		Short: "Makes a cluster the hub, or brings the hub up to date",
		Long: `Installs charts/hub in the cluster that --context names, with the CRDs that it
needs: Crossway's own in the version of this command, and those of the Gateway API
and of the Multi-Cluster Services API where they are missing. What exists of the
latter two is never changed: they belong to the cluster.

It may run again at any time: values of the last run stay, and those that are given
now are added.`,
		Example: `  crossway hub init --context hub --set 'hubCIDRs={10.10.0.0/16,10.110.0.0/16}' --values hub.yaml
  crossway hub init --context hub        # after an upgrade of crossway`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	o.values, o.output = valueFlags(c), a.outputFlags(c)
	c.Flags().DurationVar(&o.wait, "wait", 5*time.Minute, "how long to wait until the hub is ready; 0: not at all")
	return c
}

// initResult is what `hub init` did.
type initResult struct {
	Steps []step   `json:"steps"`
	Next  []string `json:"next"`
}

// nextAfterInit are the steps that follow.
var nextAfterInit = []string{
	"crossway token create <member> --region <region>     # for each cluster that exports or imports",
	"crossway token create --edge <pool> --zone <zone>    # for each place where clients enter; its EdgePool comes first",
	"crossway check",
}

func (o *initOptions) run(ctx context.Context) error {
	given, err := o.values.MergeValues(nil)
	if err != nil {
		return usage("%w", err)
	}
	hub, config, err := o.clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	if err := checkKubernetes(config); err != nil {
		return err
	}
	result := initResult{Next: nextAfterInit}
	if result.Steps, err = o.install(ctx, hub, given); err != nil {
		return err
	}
	return o.output.print("HubInit", &result, func(out io.Writer) error {
		if err := printSteps(out, result.Steps); err != nil {
			return err
		}
		fmt.Fprintln(out, "\nNext:")
		for _, next := range result.Next {
			fmt.Fprintln(out, "  "+next)
		}
		return nil
	})
}

// install does the steps and returns what each did.
func (o *initOptions) install(ctx context.Context, hub client.Client, given map[string]any) ([]step, error) {
	own, err := crosswayCRDs()
	if err != nil {
		return nil, err
	}
	var steps []step
	for _, set := range []crdSet{gatewayAPI(), mcsAPI(), own} {
		o.progress.say("%s ...", set.title)
		did, err := o.installCRDs(ctx, hub, set)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step{set.title, did})
	}
	o.progress.say("charts/hub in namespace %s ...", o.namespace())
	did, err := installRelease(ctx, o.kubeconfig, chartRelease{name: hubRelease, chart: "hub", values: given})
	if err != nil {
		return nil, err
	}
	steps = append(steps, step{"release " + hubRelease, did})
	if o.wait <= 0 {
		return steps, nil
	}
	if err := o.progress.wait(ctx, "the hub", o.wait, rolledOut(hub, client.ObjectKey{Namespace: o.namespace(), Name: hubRelease})); err != nil {
		return nil, fmt.Errorf("%w; see kubectl -n %s logs deployment/%s", err, o.namespace(), hubRelease)
	}
	return append(steps, step{"hub", "ready"}), nil
}

// checkKubernetes returns an error for a cluster that is too old.
func checkKubernetes(config *rest.Config) error {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	v, err := d.ServerVersion()
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	have, err := version.ParseGeneric(v.GitVersion)
	if err != nil {
		return fmt.Errorf("version of the cluster: %w", err)
	}
	if have.LessThan(version.MustParseGeneric(kubernetesMin)) {
		return fmt.Errorf("%s runs Kubernetes %s; Crossway needs %s or newer: upgrade the cluster first", config.Host, v.GitVersion, kubernetesMin)
	}
	return nil
}
