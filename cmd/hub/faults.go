//go:build faults

package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// faults switches mechanisms of the hub off, so that a test can show that its figure is bad without the mechanism. Each
// costs requests or moves shares. It exists only in a build with the tag faults (see no_faults.go), and works where the
// packages are wired: none of them knows of it.
type faults struct{ disable string }

const (
	disableOverflow        = "overflow"          // no import has a rate: nothing overflows
	disableRetries         = "retries"           // no host and no route has a retry policy
	disableMakeBeforeBreak = "make-before-break" // routes do not wait for their clusters
	disableKeptShares      = "kept-shares"       // nothing is learned from the versions that edges have
)

var mechanisms = []string{disableOverflow, disableRetries, disableMakeBeforeBreak, disableKeptShares}

func (f *faults) bind(flags *flag.FlagSet) {
	flags.StringVar(&f.disable, "disable", "", "for tests, costs requests: mechanisms to switch off, separated by commas: "+strings.Join(mechanisms, ", "))
}

func (f *faults) validate() error {
	var faults []error
	for _, name := range list(f.disable) {
		if !slices.Contains(mechanisms, name) {
			faults = append(faults, fmt.Errorf("--disable: there is no mechanism %q; there are %s", name, strings.Join(mechanisms, ", ")))
		}
	}
	return errors.Join(faults...)
}

func (f *faults) disabled(mechanism string) bool { return slices.Contains(list(f.disable), mechanism) }

func (f *faults) config(c server.Config) server.Config {
	if f.disabled(disableMakeBeforeBreak) {
		c.WarmTimeout = time.Nanosecond
	}
	return c
}

func (f *faults) assigner(a reconciler.Assigner) reconciler.Assigner {
	if f.disabled(disableOverflow) {
		return withoutRates{a}
	}
	return a
}

func (f *faults) publisher(p reconciler.Publisher) reconciler.Publisher {
	if f.disabled(disableRetries) {
		return publisherWithoutRetries{p}
	}
	return p
}

func (f *faults) observer(o server.Observer) server.Observer {
	if f.disabled(disableKeptShares) {
		return withoutAssignmentVersions(o)
	}
	return o
}

// withoutRates removes the rate of every import.
type withoutRates struct{ reconciler.Assigner }

func (r withoutRates) SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy) {
	imports = slices.Clone(imports)
	for i := range imports {
		imports[i].Rate = 0
	}
	r.Assigner.SetAssignments(assignments, imports)
}

// withoutAssignmentVersions hides which versions of load assignments edges have.
func withoutAssignmentVersions(o server.Observer) server.Observer {
	next := o.InitialVersions
	o.InitialVersions = func(e server.Edge, typeURL string, versions map[string]string) {
		if typeURL == resourcev3.EndpointType {
			versions = nil
		}
		next(e, typeURL, versions)
	}
	return o
}

type publisherWithoutRetries struct{ reconciler.Publisher }

func (p publisherWithoutRetries) Publish(s rollout.Snapshot) {
	s.Resources.Routes = withoutRetries(s.Resources.Routes)
	p.Publisher.Publish(s)
}

// withoutRetries removes all retry policies, and the header that adds to them. Versions get a suffix, because the content differs.
func withoutRetries(routes []envoy.Resource) []envoy.Resource {
	out := slices.Clone(routes)
	for i, r := range out {
		var configuration routev3.RouteConfiguration
		if err := r.Body.UnmarshalTo(&configuration); err != nil {
			continue // not one of ours
		}
		configuration.RequestHeadersToAdd = slices.DeleteFunc(configuration.RequestHeadersToAdd,
			func(h *corev3.HeaderValueOption) bool { return h.GetHeader().GetKey() == "x-envoy-retry-on" })
		for _, host := range configuration.VirtualHosts {
			host.RetryPolicy = nil
			for _, route := range host.Routes {
				if action := route.GetRoute(); action != nil {
					action.RetryPolicy = nil
				}
			}
		}
		body := new(anypb.Any)
		if err := anypb.MarshalFrom(body, &configuration, proto.MarshalOptions{Deterministic: true}); err == nil {
			out[i].Body, out[i].Version = body, r.Version+"-without-retries"
		}
	}
	return out
}
