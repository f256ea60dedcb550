package program

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// version is set by the linker: -X crossway.dev/crossway/pkg/program.version=v0.1.0
var version string

// Version is the version that the linker set, otherwise the module version
// that Go recorded, otherwise "(devel)".
func Version() string {
	recorded := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		recorded = info.Main.Version
	}
	return cmp.Or(version, recorded, "(devel)")
}

// errVersionAsked is returned by Parse for --version.
var errVersionAsked = errors.New("--version prints the version and runs nothing")

// Main runs a program until it ends or a signal interrupts it. A second signal
// kills the process. An error is printed and gives exit status 1.
func Main(name string, run func(ctx context.Context, args []string, stderr io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	switch err := run(ctx, os.Args[1:], os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errVersionAsked):
		fmt.Println(name, Version())
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Options are the flags of one program.
type Options interface {
	// Bind adds the flags to a set.
	Bind(flags *flag.FlagSet)
	// Validate returns all faults of the flags together.
	Validate() error
}

// Parse reads a program's flags and makes its log, JSON lines on stderr, which
// client-go and controller-runtime write to as well. Beside the options it
// reads --log-level and --version. Main treats its errors for --help and
// --version as success.
func Parse(name string, options Options, args []string, stderr io.Writer) (logr.Logger, error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	options.Bind(flags)
	level := flags.String("log-level", "info", "debug, info, warn or error")
	asked := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return logr.Logger{}, err
	}
	if *asked {
		return logr.Logger{}, errVersionAsked
	}
	if flags.NArg() > 0 {
		return logr.Logger{}, fmt.Errorf("unexpected argument %q: there are only flags", flags.Arg(0))
	}
	var minimum slog.Level
	var levelErr error
	if minimum.UnmarshalText([]byte(*level)) != nil {
		levelErr = fmt.Errorf("--log-level %q: use debug, info, warn or error", *level)
	}
	if err := errors.Join(options.Validate(), levelErr); err != nil {
		return logr.Logger{}, err
	}
	log := logr.FromSlogHandler(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: minimum}))
	ctrl.SetLogger(log)
	klog.SetLogger(log.WithName("client-go"))
	return log, nil
}
