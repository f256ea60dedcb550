package fleetload

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Names of the hub's metrics, of which the labels are import, region (of clients) and cluster.
const (
	DemandMetric   = "crossway_import_demand_requests_per_second"
	ShareMetric    = "crossway_import_share"
	OpenMetric     = "crossway_import_open_requests"
	HeldOutMetric  = "crossway_import_held_out"
	CapacityMetric = "crossway_import_capacity_requests_per_second"
	ReadyMetric    = "crossway_import_ready_endpoints"
	DrainedMetric  = "crossway_member_drained_ratio"
	// DecidedMetric has the label replica: who decides the shares.
	DecidedMetric = "crossway_shares_decided_by"
	// KnownMetric and ConnectedMetric say how many other replicas of the hub there are, and how many of them one hears.
	KnownMetric     = "crossway_replica_known"
	ConnectedMetric = "crossway_replica_connected"
)

// Sample is one value of a metric.
type Sample struct {
	Metric                  string
	Import, Region, Cluster string
	Value                   float64
}

// Load is the load of the fleet at one moment.
type Load struct {
	Imports map[string]*Import // by namespace/name; those with clients or with a rate
	// Drained is the part of each cluster's requests that others get, 0 to 1.
	Drained map[string]float64
	// Unread are the replicas of the hub that could not be read, with the reason. The others know the same, but for a
	// replica that they do not hear.
	Unread []string
	// Deaf are the replicas of the hub that do not hear all others, with how many of them each hears.
	Deaf []string
}

// Import is the load of one import.
type Import struct {
	Demand map[string]float64 // requests per second by region of clients
	// Shares are parts of 1, Open requests that have not ended, and HeldOut is 1 for a cluster that cannot be reached:
	// each by region and cluster.
	Shares, Open, HeldOut map[string]map[string]float64
	Capacity              map[string]float64 // requests per second by cluster; empty: the import has no rate
	Ready                 map[string]float64 // endpoints by cluster
}

// Replica is what one replica of the hub says.
type Replica struct {
	Name    string
	Samples []Sample
	// DecidedBy names the replica that decides the shares, as this one hears; "": it does not say.
	DecidedBy string
	// Known are the other replicas that there are, and Connected those of them that this one hears.
	Known, Connected int
}

// LoadOf is the load of the fleet as one replica of the hub says it. Each of them knows the requests of all edges, so
// that nothing adds up. It is the one that most of them name as who decides the shares, or else the first one.
func LoadOf(replicas []Replica) Load {
	out := Load{Imports: map[string]*Import{}, Drained: map[string]float64{}}
	votes := map[string]int{}
	for _, r := range replicas {
		votes[r.DecidedBy]++
		if r.Connected < r.Known {
			out.Deaf = append(out.Deaf, fmt.Sprintf("%s hears %d of %d others", r.Name, r.Connected, r.Known))
		}
	}
	if len(replicas) == 0 {
		return out
	}
	best := slices.MinFunc(replicas, func(a, b Replica) int {
		return cmp.Or(cmp.Compare(votes[b.Name], votes[a.Name]), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range best.Samples {
		out.take(s)
	}
	return out
}

func (l Load) take(s Sample) {
	if s.Metric == DrainedMetric {
		l.Drained[s.Cluster] = s.Value
		return
	}
	i := l.Imports[s.Import]
	if i == nil {
		i = &Import{Demand: map[string]float64{}, Shares: map[string]map[string]float64{}, Open: map[string]map[string]float64{},
			HeldOut: map[string]map[string]float64{}, Capacity: map[string]float64{}, Ready: map[string]float64{}}
	}
	switch s.Metric {
	case DemandMetric:
		i.Demand[s.Region] = s.Value
	case ShareMetric:
		set(i.Shares, s.Region, s.Cluster, s.Value)
	case OpenMetric:
		set(i.Open, s.Region, s.Cluster, s.Value)
	case HeldOutMetric:
		set(i.HeldOut, s.Region, s.Cluster, s.Value)
	case CapacityMetric:
		i.Capacity[s.Cluster] = s.Value
	case ReadyMetric:
		i.Ready[s.Cluster] = s.Value
	default:
		return
	}
	l.Imports[s.Import] = i
}

func set(to map[string]map[string]float64, a, b string, v float64) {
	if to[a] == nil {
		to[a] = map[string]float64{}
	}
	to[a][b] = v
}

// RegionShare is a cluster's part of all requests of one region.
type RegionShare struct {
	Region string  `json:"region"`
	Demand float64 `json:"requestsPerSecond"` // of the region's clients, for all imports
	Part   float64 `json:"share"`             // of the demand that the cluster answers, 0 to 1
}

// Member is the load of one cluster.
type Member struct {
	Shares   []RegionShare `json:"regions,omitempty"` // by region
	Requests float64       `json:"requestsPerSecond"` // that it answers, of all regions
	Open     int           `json:"openRequests"`
	// Capacity is what it takes of the imports that have a rate, and Room what is free of it.
	Capacity float64 `json:"capacity"`
	Room     float64 `json:"room"`
	Drained  float64 `json:"drained"` // 0 to 1
}

// Of returns the load of one cluster.
func (l Load) Of(cluster string) Member {
	out := Member{Drained: l.Drained[cluster]}
	regions := map[string]*RegionShare{}
	for _, i := range l.Imports {
		answered := 0.0
		for region, shares := range i.Shares {
			r := regions[region]
			if r == nil {
				r = &RegionShare{Region: region}
				regions[region] = r
			}
			r.Demand += i.Demand[region]
			r.Part += shares[cluster] * i.Demand[region]
			answered += shares[cluster] * i.Demand[region]
		}
		for _, open := range i.Open {
			out.Open += int(open[cluster])
		}
		out.Requests += answered
		if capacity, rated := i.Capacity[cluster]; rated {
			out.Capacity += capacity
			out.Room += max(capacity-answered, 0)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(regions)) {
		r := *regions[name]
		if r.Demand > 0 {
			r.Part /= r.Demand
		}
		out.Shares = append(out.Shares, r)
	}
	return out
}

// OpenOf lists the imports of which a cluster has open requests, most first.
func (l Load) OpenOf(cluster string) []OpenRequests {
	var out []OpenRequests
	for name, i := range l.Imports {
		n := 0
		for _, open := range i.Open {
			n += int(open[cluster])
		}
		if n > 0 {
			out = append(out, OpenRequests{Import: name, Count: n})
		}
	}
	slices.SortFunc(out, func(a, b OpenRequests) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Import, b.Import))
	})
	return out
}

// OpenRequests are requests that have not ended.
type OpenRequests struct {
	Import string `json:"import"`
	Count  int    `json:"count"`
}
