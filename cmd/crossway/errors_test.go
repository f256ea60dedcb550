package main

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A wait goes on after what may pass, and ends with what stays as it is.
func TestWhatPasses(t *testing.T) {
	sent := func(err error) error {
		return &url.Error{Op: "Get", URL: "https://hub", Err: &net.OpError{Op: "dial", Err: err}}
	}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nobody listens":                 {sent(syscall.ECONNREFUSED), true},
		"a name server does not answer":  {sent(&net.DNSError{Err: "timeout", IsTimeout: true}), true},
		"a host name that is none":       {sent(&net.DNSError{Err: "no such host", IsNotFound: true}), false},
		"the API server is busy":         {apierrors.NewTooManyRequestsError("later"), true},
		"the API server refuses":         {apierrors.NewUnauthorized("no"), false},
		"an error of the command itself": {errors.New("no"), false},
	} {
		if got := passing(test.err); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// Who reaches no cluster is told what to do, however it ends.
func TestAdviceOfTheUnreachable(t *testing.T) {
	for _, err := range []error{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, os.ErrDeadlineExceeded} {
		err = withAdvice(&url.Error{Op: "Get", URL: "https://hub", Err: err})
		if !strings.Contains(err.Error(), "name the cluster with --context") {
			t.Error(err)
		}
	}
}
