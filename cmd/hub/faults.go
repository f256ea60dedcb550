//go:build faults

package main

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
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
	disableRetries         = "retries"           // no cluster and no route has a retry policy
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
	s.Resources.Listeners = edited(s.Resources.Listeners, listenerWithoutRetries)
	s.Resources.Routes = edited(s.Resources.Routes, routesWithoutRetries)
	s.Resources.Clusters = edited(s.Resources.Clusters, clusterWithoutRetries)
	p.Publisher.Publish(s)
}

// edited are resources whose messages were changed. Versions get a suffix, because the content differs.
func edited[M any, P interface {
	*M
	proto.Message
}](resources []envoy.Resource, edit func(P)) []envoy.Resource {
	out := slices.Clone(resources)
	for i, r := range out {
		message, body := P(new(M)), new(anypb.Any)
		if err := r.Body.UnmarshalTo(message); err != nil {
			continue // not one of ours
		}
		edit(message)
		if err := anypb.MarshalFrom(body, message, proto.MarshalOptions{Deterministic: true}); err == nil {
			out[i].Body, out[i].Version = body, r.Version+"-without-retries"
		}
	}
	return out
}

// listenerWithoutRetries removes the filters that add to the policies of clusters.
func listenerWithoutRetries(listener *listenerv3.Listener) {
	without := func(filters []*hcmv3.HttpFilter) []*hcmv3.HttpFilter {
		return slices.DeleteFunc(filters, func(f *hcmv3.HttpFilter) bool { return f.Name == envoy.RetryFilter })
	}
	for _, chain := range listener.FilterChains {
		for _, filter := range chain.Filters {
			var manager hcmv3.HttpConnectionManager
			if filter.GetTypedConfig().UnmarshalTo(&manager) != nil {
				continue
			}
			manager.HttpFilters = without(manager.HttpFilters)
			for _, u := range manager.UpgradeConfigs {
				u.Filters = without(u.Filters)
			}
			if changed, err := anypb.New(&manager); err == nil {
				filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: changed}
			}
		}
	}
}

// routesWithoutRetries removes the policies of routes.
func routesWithoutRetries(configuration *routev3.RouteConfiguration) {
	for _, host := range configuration.VirtualHosts {
		for _, route := range host.Routes {
			if action := route.GetRoute(); action != nil {
				action.RetryPolicy = nil
			}
		}
	}
}

// clusterWithoutRetries removes the policy of a cluster.
func clusterWithoutRetries(cluster *clusterv3.Cluster) {
	for name, body := range cluster.TypedExtensionProtocolOptions {
		var options httpv3.HttpProtocolOptions
		if err := body.UnmarshalTo(&options); err != nil {
			continue
		}
		options.RetryPolicy = nil
		if changed, err := anypb.New(&options); err == nil {
			cluster.TypedExtensionProtocolOptions[name] = changed
		}
	}
}
