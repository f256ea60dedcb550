package state

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

var start = time.Unix(1_800_000_000, 0)

// newFleet has pools us (nearest eu) and eu, and members us-west and eu-west with two pods of imports web and api each.
func newFleet() *State {
	s := New(Hub{})
	c := NewChanges()
	for _, region := range []string{"us", "eu"} {
		p := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: region}, Spec: v1alpha1.EdgePoolSpec{Region: region}}
		if region == "us" {
			p.Spec.Nearest = []string{"eu"}
		}
		c.Pools[region] = p
	}
	for cluster, network := range map[string]string{"us-west": "10.1.0", "eu-west": "10.3.0"} {
		m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: cluster}}
		m.Spec = v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: cluster[:2], EndpointCIDRs: []string{network + ".0/24"}}
		c.Members[cluster] = m
		for i, service := range []string{"web", "api"} {
			last := []string{"1", "2"}
			if i == 1 {
				last = []string{"3", "4"}
			}
			c.Slices[SliceKey(cluster+"/"+service)] = ReadSlice(sliceOf(cluster, service, network+"."+last[0], network+"."+last[1]))
		}
	}
	s.Apply(c)
	s.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "api"), assignmentOf("c", "web", "api")},
		[]model.ImportPolicy{{Backend: importNamed("web"), Rate: 10, Mode: model.Waterfall, Policy: fleet.ObjectName{Namespace: "shop", Name: "web"}}})
	s.Update(start)
	return s
}

func sliceOf(cluster, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = "member-"+cluster, service
	s.Labels = map[string]string{v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop"}
	s.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

func importNamed(service string) fleet.Backend {
	return fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: service}}
}

func assignmentOf(key string, services ...string) model.Assignment {
	a := model.Assignment{Key: key}
	for _, s := range services {
		a.Backends = append(a.Backends, model.WeightedBackend{Backend: importNamed(s), Port: 80, PortName: "http", Weight: 1})
	}
	return a
}

// second has one report of an edge of us for assignment a: requests of us-west that fail, and of eu-west that succeed.
func second(s *State, now time.Time, failed, succeeded uint64) []HealthEvent {
	c := NewChanges()
	c.Loads = []LoadReport{{Edge: Edge{Pool: "us", Region: "us", Node: "one"}, At: now, Loads: []Load{{Assignment: "a", Interval: time.Second,
		Localities: []LocalityLoad{{SubZone: "us-west/shop/web", Failed: failed}, {SubZone: "eu-west/shop/web", Issued: succeeded, Succeeded: succeeded}}}}}}
	return s.Apply(c)
}

// A changed slice divides the demand for its service again and encodes the assignments that use it, and no others.
func TestSliceTouchesItsAssignments(t *testing.T) {
	s := newFleet()
	c := NewChanges()
	c.Slices["us-west/web"] = ReadSlice(sliceOf("us-west", "web", "10.1.0.1", "10.1.0.9"))
	s.Apply(c)
	if len(s.dirty.assignments) != 2 || len(s.dirty.backends) != 1 {
		t.Errorf("one changed slice touched %d assignments and %d backends", len(s.dirty.assignments), len(s.dirty.backends))
	}
	if got := s.Update(start); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("changed: %v", got)
	}
}

// A region has one order of overflow: that of its oldest pool that lists one.
func TestNearestOfTheOldestPool(t *testing.T) {
	s := newFleet()
	c := NewChanges()
	for i, name := range []string{"z", "y", "a"} { // from old to young; the oldest lists none
		p := &v1alpha1.EdgePool{}
		p.Name, p.CreationTimestamp = name, metav1.NewTime(time.Unix(int64(i), 0))
		p.Spec = v1alpha1.EdgePoolSpec{Region: "asia", Nearest: [][]string{nil, {"us"}, {"eu"}}[i]}
		c.Pools[name] = p
	}
	s.Apply(c)
	var got []string
	for _, r := range s.regions {
		got = append(got, r.name+">"+strings.Join(r.nearest, ","))
	}
	if text := strings.Join(got, " "); text != "asia>us eu> us>eu" {
		t.Errorf("the regions overflow %s", text)
	}
}

// Constant demand is divided again only where a report changes the estimate.
func TestConstantDemandIsNotDividedAgain(t *testing.T) {
	s := newFleet()
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	s.Connected(edge, start)
	s.Learn(edge, nil, start)
	now := start
	for range 15 {
		now = now.Add(time.Second)
		second(s, now, 0, 30)
		s.Update(now)
	}
	second(s, now.Add(time.Second), 0, 30)
	if s.backends[importNamed("web")].resplitDue {
		t.Error("constant demand is divided again with every report")
	}
}

// A member that is held out, dead and readmitted is an event each time, with the number of imports.
func TestHealthEvents(t *testing.T) {
	s := newFleet()
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	s.Connected(edge, start)
	s.Learn(edge, nil, start)
	var got []HealthEvent
	now := start
	for range 4 {
		now = now.Add(time.Second)
		got = append(got, second(s, now, 20, 20)...)
	}
	if want := []HealthEvent{{Region: "us", Cluster: "us-west", HeldOut: true, Dead: true, Imports: 1}}; !reflect.DeepEqual(got, want) {
		t.Fatalf("all requests fail: %+v", got)
	}
	s.Update(now)
	if web, _ := s.Backend(importNamed("web")); len(web.Regions[1].HeldOut) != 1 || web.Regions[1].HeldOut[0].Cluster != "us-west" || !web.Regions[1].HeldOut[0].RetryAt.Equal(start.Add(34*time.Second)) {
		t.Errorf("%+v", web)
	}
	c := NewChanges()
	c.Slices["us-west/web"] = ReadSlice(sliceOf("us-west", "web", "10.1.0.9"))
	if got := s.Apply(c); len(got) > 0 {
		t.Errorf("its endpoints changed: %+v", got)
	}
	c = NewChanges()
	c.Loads = []LoadReport{{Edge: edge, At: now.Add(time.Second), Loads: []Load{{Assignment: "a", Interval: time.Second,
		Localities: []LocalityLoad{{SubZone: "us-west/shop/web", Issued: 1, Succeeded: 1}}}}}}
	if got, want := s.Apply(c), []HealthEvent{{Region: "us", Cluster: "us-west", Imports: 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("it answers: %+v", got)
	}
}

// A dump has what people ask for: where edges and members are, and where requests go.
func TestDump(t *testing.T) {
	s := newFleet()
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	s.Connected(edge, start)
	s.Learn(edge, nil, start)
	now := start
	for range 10 {
		now = now.Add(time.Second)
		second(s, now, 0, 30)
		s.Update(now)
	}
	all := uint32(traffic.TotalParts)
	members := []traffic.Capacity{{Cluster: "eu-west", Region: "eu", Ready: 2, Scaler: 1}, {Cluster: "us-west", Region: "us", Ready: 2, Scaler: 1}}
	inEU := RegionStatus{RegionShares: traffic.RegionShares{Region: "eu", Shares: []traffic.Share{{Cluster: "eu-west", Parts: all}}}}
	inUS := RegionStatus{RegionShares: traffic.RegionShares{Region: "us", Shares: []traffic.Share{{Cluster: "us-west", Parts: all}}}}
	spilling := RegionStatus{Demand: 30, RegionShares: traffic.RegionShares{Region: "us", Overflow: all / 3,
		Shares: []traffic.Share{{Cluster: "eu-west", Parts: all / 3}, {Cluster: "us-west", Parts: all - all/3}}}}
	want := Dump{
		Regions:     map[string]RegionDump{"eu": {}, "us": {Nearest: []string{"eu"}, Edges: []string{"us/one@"}}},
		Members:     map[fleet.ClusterName]MemberDump{"hub": {Scaler: 1}, "eu-west": {fleet.Place{Region: "eu"}, 1, 0}, "us-west": {fleet.Place{Region: "us"}, 1, 0}},
		Assignments: 3,
		Backends: []BackendStatus{
			{Backend: importNamed("api"), Members: members, Regions: []RegionStatus{inEU, inUS}},
			{Backend: importNamed("web"), Rate: 10, Members: members, Regions: []RegionStatus{inEU, spilling}},
		},
	}
	if got := s.Dump(); !apiequality.Semantic.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// An edge counts a cluster that it was just asked for over a shorter time than its others. The requests of both, for one
// import, are no rise.
func TestAClusterThatIsNewInAReportIsNoRise(t *testing.T) {
	s := newFleet()
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	s.Connected(edge, start)
	s.Learn(edge, nil, start)
	now := start
	report := func(loads ...Load) {
		now = now.Add(loads[0].Interval)
		c := NewChanges()
		c.Loads = []LoadReport{{Edge: edge, At: now, Loads: loads}}
		s.Apply(c)
	}
	load := func(assignment string, interval time.Duration, requests uint64) Load {
		return Load{Assignment: assignment, Interval: interval, Localities: []LocalityLoad{{SubZone: "us-west/shop/web", Issued: requests, Succeeded: requests}}}
	}
	for range 10 {
		report(load("a", time.Second, 100))
	}
	report(load("a", 1200*time.Millisecond, 120), load("c", 250*time.Millisecond, 1))
	if got := s.backends[importNamed("web")].region("us").demand.Rate(); got < 95 || got > 110 {
		t.Errorf("101 requests per second count as %.0f", got)
	}
}
