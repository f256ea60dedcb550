package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// drainOptions are the flags of `crossway drain` and `crossway undrain`.
type drainOptions struct {
	*app
	percent int32
	over    time.Duration
	wait    time.Duration
	output  *output
}

func drainCommand(a *app) *cobra.Command {
	o := &drainOptions{app: a, percent: 100}
	c := &cobra.Command{
		Use:   "drain MEMBER",
		Short: "Moves a cluster's requests to the others, steadily",
		Long: `Moves the requests that clients send by edges from one cluster to the others, in a
straight line over the time of --over. The cluster keeps its exports, requests that
are under way end where they are, and no request fails.

It says before and meanwhile, with numbers, of which services the others have no
room. The hub moves the requests, as spec.drain of the MemberCluster says, so that
they go on moving if this command or its machine ends. Ctrl-C leaves them where
they are; crossway undrain takes them back. A service that no other cluster exports
stays. What pods of other clusters send to an import is not moved: that ends when
the cluster leaves.`,
		Example: `  crossway drain us-west --over 2m
  crossway drain us-west                 # at once`,
	}
	o.flags(c)
	c.Flags().DurationVar(&o.wait, "wait", 30*time.Second, "how long to wait afterwards for requests that are open")
	return c
}

func undrainCommand(a *app) *cobra.Command {
	o := &drainOptions{app: a}
	c := &cobra.Command{
		Use:   "undrain MEMBER",
		Short: "Takes back what crossway drain moved",
		Long:  `Gives a cluster its requests back that crossway drain moved to the others, in a straight line over the time of --over.`,
		Example: `  crossway undrain us-west --over 2m
  crossway undrain us-west               # at once`,
	}
	o.flags(c)
	return c
}

// flags adds what both commands have.
func (o *drainOptions) flags(c *cobra.Command) {
	c.Args, c.ValidArgsFunction = args(cobra.ExactArgs(1)), completeMembers(o.app)
	c.RunE = func(c *cobra.Command, given []string) error { return o.run(c.Context(), given[0]) }
	c.Flags().DurationVar(&o.over, "over", 0, "the time in which requests move; 0: at once")
	o.output = o.outputFlags(c)
}

func (o *drainOptions) run(ctx context.Context, member string) error {
	if o.over < 0 {
		return usage("--over must not be negative")
	}
	d, end, err := o.drainer(member)
	if err != nil {
		return err
	}
	defer end()
	result, err := d.move(ctx, o.percent, o.over)
	if err != nil {
		return err
	}
	if o.percent > 0 {
		if err := d.awaitIdle(ctx, o.wait, &result); err != nil {
			return err
		}
	}
	return o.output.print("Drain", &result, func(out io.Writer) error { return result.print(out) })
}
