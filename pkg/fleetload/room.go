package fleetload

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Room says what the other clusters can take of one import, if one cluster takes nothing more of it.
type Room struct {
	Import string `json:"import"`
	// Demand is what clients of all regions send, Moves what the cluster answers of it, in requests per second.
	Demand float64 `json:"requestsPerSecond"`
	Moves  float64 `json:"moves"`
	// Ready are the endpoints of the cluster.
	Ready int `json:"readyEndpoints"`
	// Others have ready endpoints, can be reached from every region with clients, and are not drained.
	Others []Other `json:"others,omitempty"`
	// Rated: the import has a rate, so that Capacity is known: what the others take, in requests per second.
	Rated    bool    `json:"rated"`
	Capacity float64 `json:"capacity"`
}

// Other is a cluster that may take requests of an import.
type Other struct {
	Cluster  string  `json:"cluster"`
	Ready    int     `json:"readyEndpoints"`
	Capacity float64 `json:"capacity"`
}

// RoomWithout lists the imports that a cluster has ready endpoints of or answers, by name.
func (l Load) RoomWithout(cluster string) []Room {
	var out []Room
	for _, name := range slices.Sorted(maps.Keys(l.Imports)) {
		i := l.Imports[name]
		r := Room{Import: name, Ready: int(i.Ready[cluster]), Rated: len(i.Capacity) > 0}
		for region, demand := range i.Demand {
			r.Demand += demand
			r.Moves += demand * i.Shares[region][cluster]
		}
		if r.Ready == 0 && r.Moves == 0 {
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(i.Ready)) {
			kept := 1 - l.Drained[other]
			if other == cluster || i.Ready[other] == 0 || kept <= 0 || i.heldOut(other) {
				continue
			}
			o := Other{Cluster: other, Ready: int(i.Ready[other]), Capacity: i.Capacity[other] * kept}
			r.Others, r.Capacity = append(r.Others, o), r.Capacity+o.Capacity
		}
		out = append(out, r)
	}
	return out
}

// heldOut says whether a region with clients cannot reach a cluster.
func (i *Import) heldOut(cluster string) bool {
	for region, held := range i.HeldOut {
		if held[cluster] > 0 && i.Demand[region] > 0 {
			return true
		}
	}
	return false
}

// Warning says why the requests of the cluster have no room elsewhere; empty where they have, or where nobody knows.
func (r Room) Warning() string {
	switch {
	case len(r.Others) == 0:
		return fmt.Sprintf("import %s: no other cluster has a ready endpoint that can be reached, so its requests stay (%s per second)", r.Import, Number(r.Moves))
	case r.Rated && r.Demand > r.Capacity:
		return fmt.Sprintf("import %s: clients send %s requests per second, and the others take %s (%s): each gets %s",
			r.Import, Number(r.Demand), Number(r.Capacity), r.othersBy(func(o Other) string { return Number(o.Capacity) }), r.overfill())
	}
	return ""
}

func (r Room) overfill() string {
	if r.Capacity <= 0 {
		return "more than it takes"
	}
	return Number(r.Demand/r.Capacity) + " times what it takes"
}

// Note says what becomes of the requests of the cluster; empty where Warning says it, or where there are none.
func (r Room) Note() string {
	if r.Warning() != "" || r.Moves == 0 {
		return ""
	}
	if r.Rated {
		return fmt.Sprintf("import %s: %s requests per second move; clients send %s, and the others take %s (%s)",
			r.Import, Number(r.Moves), Number(r.Demand), Number(r.Capacity), r.othersBy(func(o Other) string { return Number(o.Capacity) }))
	}
	ready := 0
	for _, o := range r.Others {
		ready += o.Ready
	}
	return fmt.Sprintf("import %s: %s of %s requests per second move; its room is not known, since no BackendPolicy gives it a rate: %d ready endpoints will do what %d do now (%s)",
		r.Import, Number(r.Moves), Number(r.Demand), ready, ready+r.Ready, r.othersBy(func(o Other) string { return strconv.Itoa(o.Ready) }))
}

func (r Room) othersBy(value func(Other) string) string {
	parts := make([]string, len(r.Others))
	for i, o := range r.Others {
		parts[i] = o.Cluster + " " + value(o)
	}
	return strings.Join(parts, ", ")
}

// Number prints a number with as many digits as people need.
func Number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}
