package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Exit codes, besides 0 and, for anything else that went wrong, 1.
const (
	exitUsage       = 2   // the command line is wrong
	exitTimeout     = 3   // what was waited for did not come
	exitInterrupted = 130 // Ctrl-C, as shells say it
)

// errUsage marks errors of the command line, errTimeout a wait that was in vain.
var (
	errUsage   = errors.New("usage")
	errTimeout = errors.New("timeout")
)

// marked is an error with a kind, for its exit code, that is not in its text.
type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.error, m.kind} }

func usage(format string, args ...any) error { return marked{fmt.Errorf(format, args...), errUsage} }

// exitCode returns the exit code for the error of a command.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errTimeout):
		return exitTimeout
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return 1
}

// args wraps a cobra check of arguments, so that its errors count as usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, values []string) error {
		if err := check(c, values); err != nil {
			return usage("%w; see %s --help", err, c.CommandPath())
		}
		return nil
	}
}

// passing tells whether the same request may well succeed soon: the API server starts again
// or has too much to do, or a connection broke. A host name that does not exist stays so.
func passing(err error) bool {
	var network net.Error
	var lookup *net.DNSError
	switch {
	case err == nil, isWrongCA(err), errors.As(err, &lookup) && lookup.IsNotFound:
		return false
	case errors.As(err, &network), utilnet.IsProbableEOF(err), utilnet.IsHTTP2ConnectionLost(err):
		return true
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// withAdvice adds what to do to errors that any request to a cluster may have.
func withAdvice(err error) error {
	var unreachable *net.OpError
	var sent *url.Error
	switch {
	case err == nil:
		return nil
	case meta.IsNoMatchError(err):
		return fmt.Errorf("%w; is --context the hub's? `crossway hub init` installs its CRDs", err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; fleet admins have ClusterRole crossway-fleet-admin, and Role crossway-joiner in namespace crossway-members", err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w; the credentials of this context are not valid (any more): log in to that cluster again", err)
	case errors.As(err, &unreachable), errors.As(err, &sent) && sent.Timeout():
		return fmt.Errorf("%w; name the cluster with --context, and check that it can be reached from here", err)
	}
	return err
}
