package main

import (
	"errors"
	"net"
	"net/url"
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
