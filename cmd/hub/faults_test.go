//go:build faults

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
)

type assigner struct{ rates []float64 }

func (a *assigner) SetAssignments(_ []model.Assignment, imports []model.ImportPolicy) {
	for _, i := range imports {
		a.rates = append(a.rates, i.Rate)
	}
}

// Each mechanism can be switched off, and a misspelt one is an error.
func TestFaultsFlag(t *testing.T) {
	f := faults{disable: "overflow,kept-shares"}
	if !f.disabled(disableOverflow) || !f.disabled(disableKeptShares) || f.disabled(disableRetries) || f.config(server.Config{}).WarmTimeout != 0 {
		t.Errorf("--disable=%s switches the wrong things off", f.disable)
	}
	f = faults{disable: "make-before-break"}
	if timeout := f.config(server.Config{}).WarmTimeout; timeout <= 0 || timeout > time.Microsecond {
		t.Errorf("routes wait %s for their clusters", timeout)
	}
	wrong := faults{disable: "overflow,retrys"}
	if err := wrong.validate(); err == nil || !strings.Contains(err.Error(), `"retrys"; there are overflow, retries`) {
		t.Errorf("got %v", err)
	}
}

func TestFaultsSwitchMechanismsOff(t *testing.T) {
	given := []model.ImportPolicy{{Rate: 10}}
	var got assigner
	withoutRates{&got}.SetAssignments(nil, given)
	if len(got.rates) != 1 || got.rates[0] != 0 || given[0].Rate != 10 {
		t.Errorf("rates %v from %v", got.rates, given)
	}

	var versions map[string]string
	observer := withoutAssignmentVersions(server.Observer{InitialVersions: func(_ server.Edge, _ string, v map[string]string) { versions = v }})
	observer.InitialVersions(server.Edge{}, "another type", map[string]string{"a": "1"})
	if len(versions) != 1 {
		t.Error("versions of other types are hidden, too")
	}
	observer.InitialVersions(server.Edge{}, resourcev3.EndpointType, map[string]string{"a": "1"})
	if versions != nil {
		t.Errorf("versions of load assignments are not hidden: %v", versions)
	}

	// What edges get of a Gateway with one route that forwards: nothing of it repeats a request.
	program := lbsync.Program{Assignments: []model.Assignment{{Key: "a"}}, Listeners: []lbsync.Listener{{Address: netip.MustParseAddr("198.18.1.1"), Listener: model.Listener{
		Gateway: fleet.ObjectName{Namespace: "shop", Name: "store"}, Port: 80, Protocol: model.HTTP, Chains: []model.Chain{{Name: "http",
			Hosts: []model.VirtualHost{{Hostname: "*", Rules: []model.Rule{{Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: "/"}},
				Forward: &model.Forward{Targets: []model.Target{{Assignment: "a", Weight: 1}}}}}}}}}}}}}
	made := envoy.Translate(program)
	text := func(r envoy.Resource) string {
		message, err := r.Body.UnmarshalNew()
		testkit.Must(t, err)
		return protojson.Format(message)
	}
	for name, c := range map[string]struct{ made, changed []envoy.Resource }{
		envoy.RetryFilter: {made.Listeners, edited(made.Listeners, listenerWithoutRetries)},
		"retryPolicy":     {made.Clusters, edited(made.Clusters, clusterWithoutRetries)},
	} {
		if len(c.changed) != 1 || !strings.Contains(text(c.made[0]), name) {
			t.Fatalf("%d resources, the first of which has no %s", len(c.made), name)
		}
		if got := text(c.changed[0]); strings.Contains(got, name) || strings.Contains(got, "retryPolicy") || c.changed[0].Version == c.made[0].Version {
			t.Errorf("version %q still retries: %s", c.changed[0].Version, got)
		}
	}
}
