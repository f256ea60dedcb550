package main

import (
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/server"
)

type assigner struct{ rates []float64 }

func (a *assigner) SetAssignments(_ []model.Assignment, imports []model.ImportPolicy) {
	for _, i := range imports {
		a.rates = append(a.rates, i.Rate)
	}
}

// Each mechanism can be switched off, and a misspelt one is told.
func TestDisable(t *testing.T) {
	o := Options{Disable: "overflow,kept-shares"}
	if !o.disabled(disableOverflow) || !o.disabled(disableKeptShares) || o.disabled(disableRetries) || o.warmTimeout() != 0 {
		t.Errorf("--disable=%s switches the wrong things off", o.Disable)
	}
	if o = (Options{Disable: "make-before-break"}); o.warmTimeout() <= 0 || o.warmTimeout() > time.Microsecond {
		t.Errorf("routes wait %s for their clusters", o.warmTimeout())
	}
	wrong := Options{Disable: "overflow,retrys"}
	if faults := wrong.disableFaults(); len(faults) != 1 || !strings.Contains(faults[0].Error(), `"retrys"; there are overflow, retries`) {
		t.Errorf("got %v", faults)
	}
}

func TestWhatIsSwitchedOff(t *testing.T) {
	given := []model.ImportPolicy{{Rate: 10}}
	var got assigner
	rateless{&got}.SetAssignments(nil, given)
	if len(got.rates) != 1 || got.rates[0] != 0 || given[0].Rate != 10 {
		t.Errorf("rates %v from %v", got.rates, given)
	}

	var held map[string]string
	told := forgetful(server.Observer{InitialVersions: func(_ server.Edge, _ string, versions map[string]string) { held = versions }})
	told.InitialVersions(server.Edge{}, "another type", map[string]string{"a": "1"})
	if len(held) != 1 {
		t.Error("what edges hold of other types is hidden, too")
	}
	told.InitialVersions(server.Edge{}, resourcev3.EndpointType, map[string]string{"a": "1"})
	if held != nil {
		t.Errorf("an edge's load assignments are told: %v", held)
	}

	body, err := anypb.New(&routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{Routes: []*routev3.Route{{
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{RetryPolicy: &routev3.RetryPolicy{RetryOn: "reset"}}}}}}}})
	check(t, err)
	var after routev3.RouteConfiguration
	changed := withoutRetries([]server.Resource{{Name: "r", Version: "v", Body: body}})[0]
	check(t, changed.Body.UnmarshalTo(&after))
	if after.VirtualHosts[0].Routes[0].GetRoute().RetryPolicy != nil || changed.Version == "v" {
		t.Errorf("version %q still retries: %v", changed.Version, &after)
	}
}
