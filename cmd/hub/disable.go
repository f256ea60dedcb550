package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/server"
)

// What --disable can switch off. Each costs requests or moves shares, so that a
// test that measures the mechanism can see its figure go bad. They are undone
// here, where the rooms meet: no room knows of them.
const (
	disableOverflow        = "overflow"          // no import has a rate: nothing overflows
	disableRetries         = "retries"           // routes without a retry policy
	disableMakeBeforeBreak = "make-before-break" // routes do not wait for their clusters
	disableKeptShares      = "kept-shares"       // nothing is learned from the versions that edges hold
)

var disablable = []string{disableOverflow, disableRetries, disableMakeBeforeBreak, disableKeptShares}

func (o *Options) disabled(mechanism string) bool { return slices.Contains(list(o.Disable), mechanism) }

func (o *Options) disableFaults() (faults []error) {
	for _, name := range list(o.Disable) {
		if !slices.Contains(disablable, name) {
			faults = append(faults, fmt.Errorf("--disable: there is no mechanism %q; there are %s", name, strings.Join(disablable, ", ")))
		}
	}
	return faults
}

// warmTimeout is how long routes wait for their clusters; 0 is the server's own default.
func (o *Options) warmTimeout() time.Duration {
	if o.disabled(disableMakeBeforeBreak) {
		return time.Nanosecond
	}
	return 0
}

func (o *Options) assigner(all reconciler.Assigner) reconciler.Assigner {
	if o.disabled(disableOverflow) {
		return rateless{all}
	}
	return all
}

func (o *Options) observer(all server.Observer) server.Observer {
	if o.disabled(disableKeptShares) {
		return forgetful(all)
	}
	return all
}

// rateless takes the rate off every import.
type rateless struct{ reconciler.Assigner }

func (r rateless) SetAssignments(assignments []model.Assignment, imports []model.ImportPolicy) {
	imports = slices.Clone(imports)
	for i := range imports {
		imports[i].Rate = 0
	}
	r.Assigner.SetAssignments(assignments, imports)
}

// forgetful hides what edges hold of load assignments.
func forgetful(told server.Observer) server.Observer {
	holds := told.InitialVersions
	told.InitialVersions = func(e server.Edge, typeURL string, versions map[string]string) {
		if typeURL == resourcev3.EndpointType {
			versions = nil
		}
		holds(e, typeURL, versions)
	}
	return told
}

// withoutRetries takes the retry policy off every route. Versions get a suffix:
// the content is another one.
func withoutRetries(routes []server.Resource) []server.Resource {
	out := slices.Clone(routes)
	for i, r := range out {
		var configuration routev3.RouteConfiguration
		if err := r.Body.UnmarshalTo(&configuration); err != nil {
			continue // not one of ours
		}
		for _, host := range configuration.VirtualHosts {
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
