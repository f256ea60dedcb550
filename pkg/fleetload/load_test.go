package fleetload

import (
	"reflect"
	"testing"
)

// replica is one replica of the hub: in us 100 requests per second for web, of which us-west answers a part, and 20 for
// api, which has no rate.
func replica(demand, west float64) []Sample {
	return []Sample{
		{Metric: DemandMetric, Import: "shop/web", Region: "us", Value: demand},
		{Metric: ShareMetric, Import: "shop/web", Region: "us", Cluster: "us-west", Value: west},
		{Metric: ShareMetric, Import: "shop/web", Region: "us", Cluster: "eu-west", Value: 1 - west},
		{Metric: OpenMetric, Import: "shop/web", Region: "us", Cluster: "us-west", Value: 2},
		{Metric: CapacityMetric, Import: "shop/web", Cluster: "us-west", Value: 100},
		{Metric: CapacityMetric, Import: "shop/web", Cluster: "eu-west", Value: 60},
		{Metric: ReadyMetric, Import: "shop/web", Cluster: "us-west", Value: 10},
		{Metric: ReadyMetric, Import: "shop/web", Cluster: "eu-west", Value: 6},
	}
}

// api is an import without a rate.
var api = []Sample{
	{Metric: DemandMetric, Import: "shop/api", Region: "us", Value: 20},
	{Metric: ShareMetric, Import: "shop/api", Region: "us", Cluster: "us-west", Value: 1},
	{Metric: ReadyMetric, Import: "shop/api", Cluster: "us-west", Value: 2},
	{Metric: ReadyMetric, Import: "shop/api", Cluster: "us-east", Value: 1},
}

// Two replicas know different edges: requests add up, shares count by requests, and what clusters have is the same.
func TestMergeOfReplicas(t *testing.T) {
	load := Merge([][]Sample{replica(30, 0.5), replica(10, 0.9)})
	web := load.Imports["shop/web"]
	if web.Demand["us"] != 40 || web.Capacity["us-west"] != 100 || web.Ready["eu-west"] != 6 {
		t.Errorf("demand %v, capacity %v, ready %v", web.Demand, web.Capacity, web.Ready)
	}
	if got := Number(web.Shares["us"]["us-west"]); got != "0.6" {
		t.Errorf("us-west's share is %s, want (30 x 0.5 + 10 x 0.9) / 40", got)
	}
	member := load.Of("us-west")
	if member.Open != 4 || member.Requests != 24 || member.Capacity != 100 || member.Room != 76 {
		t.Errorf("us-west: %+v", member)
	}
}

// A region without requests has a share, too.
func TestShareWithoutRequests(t *testing.T) {
	load := Merge([][]Sample{replica(0, 0.25), replica(0, 0.25)})
	if got := load.Imports["shop/web"].Shares["us"]["us-west"]; got != 0.25 {
		t.Errorf("us-west's share is %v", got)
	}
}

func TestOfAClusterOverAllImports(t *testing.T) {
	load := Merge([][]Sample{append(replica(60, 0.5), api...)})
	want := []RegionShare{{Region: "us", Demand: 80, Part: 0.625}}
	if got := load.Of("us-west").Shares; !reflect.DeepEqual(got, want) {
		t.Errorf("us-west's shares are %+v, want %+v", got, want)
	}
	if got := load.OpenOf("us-west"); !reflect.DeepEqual(got, []OpenRequests{{"shop/web", 2}}) {
		t.Errorf("open requests: %v", got)
	}
}

func TestRoomInWords(t *testing.T) {
	drained := Sample{Metric: DrainedMetric, Cluster: "eu-west", Value: 1}
	unreachable := Sample{Metric: HeldOutMetric, Import: "shop/web", Region: "us", Cluster: "eu-west", Value: 1}
	for _, c := range []struct {
		what          string
		samples       []Sample
		warning, note string
	}{
		{"room", replica(50, 0.5), "",
			"import shop/web: 25 requests per second move; clients send 50, and the others take 60 (eu-west 60)"},
		{"no room", replica(90, 0.5), "import shop/web: clients send 90 requests per second, and the others take 60 (eu-west 60): each gets 1.5 times what it takes", ""},
		{"the other is drained", append(replica(50, 1), drained),
			"import shop/web: no other cluster has a ready endpoint that can be reached, so its requests stay (50 per second)", ""},
		{"the other cannot be reached", append(replica(50, 1), unreachable),
			"import shop/web: no other cluster has a ready endpoint that can be reached, so its requests stay (50 per second)", ""},
		{"no rate", api, "", "import shop/api: 20 of 20 requests per second move; its room is not known, since no BackendPolicy gives it a rate: 1 ready endpoints will do what 3 do now (us-east 1)"},
		{"nothing moves", replica(50, 0), "", ""},
	} {
		rooms := Merge([][]Sample{c.samples}).RoomWithout("us-west")
		if len(rooms) != 1 {
			t.Fatalf("%s: %+v", c.what, rooms)
		}
		if got := rooms[0].Warning(); got != c.warning {
			t.Errorf("%s: warning %q, want %q", c.what, got, c.warning)
		}
		if got := rooms[0].Note(); got != c.note {
			t.Errorf("%s: note %q, want %q", c.what, got, c.note)
		}
	}
	if rooms := Merge([][]Sample{replica(50, 0.5)}).RoomWithout("us-east"); len(rooms) != 0 {
		t.Errorf("us-east has no part of web: %+v", rooms)
	}
}
