package endpoints

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/endpoints/state"
)

// A Service that routes name and that has no EndpointSlice is told so, unless it has just been made.
func TestServicesAreToldThatTheyHaveNoSlice(t *testing.T) {
	f := newFixture(t)
	recorder := events.NewFakeRecorder(10)
	f.config.Events = recorder
	f.state = state.New(state.Hub{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")}})
	f.SetAssignments([]model.Assignment{serviceAssignment("bare")}, nil)
	next := func(after time.Duration) string { return f.nextEvent(recorder, after) }
	const want = "Warning NoEndpointSlices routes name this Service"
	for look, want := range []string{"", want, "", ""} {
		if got := next(time.Duration(min(look, 1)) * unservedInterval); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("look %d: %q, want %q", look, got, want)
		}
	}
	f.slice(serviceSlice("bare", "10.10.0.7"))
	if got := next(repeatUnserved); got != "" {
		t.Errorf("it has a slice now: %q", got)
	}
}

// nextEvent is the Event that the loop emits after some time, or "".
func (f *fixture) nextEvent(recorder *events.FakeRecorder, after time.Duration) string {
	f.clock.Step(after)
	f.run()
	select {
	case event := <-recorder.Events:
		return event
	default:
		return ""
	}
}

func serviceSlice(service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}}}
	s.Namespace, s.Name, s.Labels = "shop", service+"-1", map[string]string{discoveryv1.LabelServiceName: service}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func serviceAssignment(name string) model.Assignment {
	return model.Assignment{Key: name, Backends: []model.WeightedBackend{{Backend: fleet.Backend{Kind: fleet.Service, Name: fleet.ServiceName{Namespace: "shop", Name: name}},
		Port: 80, PortName: "http", Weight: 1, Clusters: []fleet.ClusterName{fleet.HubCluster}}}}
}

// A Service of the hub's cluster without a selector, or of pods in the network of their nodes, has addresses that may not be
// the hub's. Whoever looks at the Service is told so, once, and again before the Event is gone.
func TestServicesAreToldOfUnservedAddresses(t *testing.T) {
	f := newFixture(t)
	recorder := events.NewFakeRecorder(10)
	leads := false
	f.config.Events, f.config.Leads = recorder, func() bool { return leads }
	f.state = state.New(state.Hub{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/16")}})
	slice := func(service string, addresses ...string) { f.slice(serviceSlice(service, addresses...)) }
	slice("outside", "192.168.0.2", "10.10.0.7", "192.168.0.1")
	slice("inside", "10.10.0.8")
	slice("unused", "192.168.0.9")
	f.SetAssignments([]model.Assignment{serviceAssignment("outside"), serviceAssignment("inside")}, nil)
	next := func(after time.Duration) string { return f.nextEvent(recorder, after) }
	if got := next(unservedInterval); got != "" {
		t.Errorf("a replica that does not lead: %q", got)
	}
	leads = true
	const want = "Warning AddressesNotServed 2 of 3 addresses of its EndpointSlices get no requests from Gateways, 192.168.0.1 for instance"
	if got := next(unservedInterval); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for range 3 {
		if got := next(unservedInterval); got != "" {
			t.Errorf("once more, or about a Service that is well: %q", got)
		}
	}
	if got := next(repeatUnserved); !strings.HasPrefix(got, want) {
		t.Errorf("after half an hour: %q", got)
	}
	slice("outside", "10.10.0.7")
	if got := next(repeatUnserved); got != "" {
		t.Errorf("nothing is refused any more: %q", got)
	}
}
