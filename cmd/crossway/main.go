package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"crossway.dev/crossway/pkg/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	if err := run(ctx, os.Args[1:], streams); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		stop()
		os.Exit(exitCode(err))
	}
}

// run executes one command line.
func run(ctx context.Context, args []string, streams genericiooptions.IOStreams) error {
	root := rootCommand(newApp(streams))
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	return explain(root.ExecuteContext(ctx))
}

func rootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "crossway",
		Short: "Joins many Kubernetes clusters into one fleet behind one Gateway API",
		Long: `Joins many Kubernetes clusters into one fleet behind one Gateway API.

Exit codes: 0 done, 1 refused or failed (check: something is wrong), 2 the command
line is wrong, 3 what was waited for did not come, 130 interrupted.`,
		Version:       program.Version(),
		SilenceUsage:  true,
		SilenceErrors: true, // main prints the error, once
	}
	if filepath.Base(os.Args[0]) == "kubectl-crossway" { // a plugin: help and completion speak of kubectl
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl crossway"}
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage("%w; see %s --help", err, c.CommandPath()) })
	root.AddCommand(drainCommand(a), undrainCommand(a), leaveCommand(a))
	flags := root.PersistentFlags()
	a.kubeconfig.AddFlags(flags)
	flags.Lookup("namespace").Usage = "namespace of Crossway in the cluster"
	utilruntime.Must(root.RegisterFlagCompletionFunc("context", completeContexts(a)))
	root.AddCommand(hubCommand(a), tokenCommand(a), joinCommand(a), acceptCommand(a), revokeCommand(a), checkCommand(a), membersCommand(a), edgeCommand(a), versionCommand(a))
	return root
}

// group is a command that only has others below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, given []string) error {
		if len(given) > 0 {
			return usage("unknown command %q for %q; see %[2]s --help", given[0], c.CommandPath())
		}
		return c.Help()
	}}
	c.AddCommand(commands...)
	return c
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints the version of this command",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.streams.Out, "crossway %s %s %s/%s\n", program.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// explain marks errors of the command line that cobra makes without a hook.
func explain(err error) error {
	if err != nil && (strings.HasPrefix(err.Error(), "unknown command ") || strings.HasPrefix(err.Error(), "required flag(s) ")) {
		return usage("%w; see crossway --help", err)
	}
	return withAdvice(err)
}
