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

// one is the load that one replica says.
func one(samples []Sample) Load { return LoadOf([]Replica{{Samples: samples}}) }

// Replicas all know the same edges: the one counts that decides the shares, and nothing adds up.
func TestLoadOfReplicas(t *testing.T) {
	a, b := Replica{Name: "a", Samples: replica(30, 0.5), DecidedBy: "a"}, Replica{Name: "b", Samples: replica(40, 0.6), DecidedBy: "b"}
	heardByB, silent := b, a
	heardByB.Name, silent.DecidedBy = "c", ""
	for what, test := range map[string]struct {
		replicas []Replica
		want     float64
	}{
		"most name b":              {[]Replica{a, b, heardByB}, 40},
		"a split: the first one":   {[]Replica{b, a}, 30},
		"who decides is not read":  {[]Replica{silent, heardByB}, 30},
		"nobody says who decides":  {[]Replica{silent}, 30},
		"no replica knows of load": {[]Replica{{Name: "a"}}, 0},
	} {
		load := LoadOf(test.replicas)
		if test.want == 0 && len(load.Imports) == 0 {
			continue
		}
		member, web := load.Of("us-west"), load.Imports["shop/web"]
		if web.Demand["us"] != test.want || member.Open != 2 || member.Capacity != 100 {
			t.Errorf("%s: demand %v, us-west %+v", what, web.Demand, member)
		}
	}
}

// A region without requests has a share, too.
func TestShareWithoutRequests(t *testing.T) {
	load := one(replica(0, 0.25))
	if got := load.Imports["shop/web"].Shares["us"]["us-west"]; got != 0.25 {
		t.Errorf("us-west's share is %v", got)
	}
}

func TestOfAClusterOverAllImports(t *testing.T) {
	load := one(append(replica(60, 0.5), api...))
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
		rooms := one(c.samples).RoomWithout("us-west")
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
	if rooms := one(replica(50, 0.5)).RoomWithout("us-east"); len(rooms) != 0 {
		t.Errorf("us-east has no part of web: %+v", rooms)
	}
}
