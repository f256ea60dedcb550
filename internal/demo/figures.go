package demo

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Figures are the measured values by name; most are a single number.
type Figures map[string][]float64

// Bound is the range of a figure, both ends included, for each element.
type Bound struct {
	Figure string
	Low    []float64
	High   []float64
	What   string // what it counts
}

// minRequests is the least number of requests for a count of failures to mean something.
const minRequests = 1000

// Bounds are all that the demo promises. A figure without a bound is printed
// and not judged. A bound without a figure does not hold.
var Bounds = []Bound{
	exactly("clusters_ready", 3, "member clusters that joined and are reachable"),
	atMost("export_to_traffic_ms", 2000, "ServiceExport created -> first 200 through the gateway"),
	exactly("local_percent_us", 100, "requests of clients in us served in us"),
	exactly("local_percent_eu", 100, "requests of clients in eu served in eu"),
	atLeast("local_requests", minRequests, "requests behind the two figures above"),
	within("weight_green_percent", 10, 1, "requests served by green at weights 90/10"),
	atLeast("weight_requests", 10000, "requests behind it"),
	exactly("canary_misrouted", 0, "requests with env: canary not served by green, or without it not by blue"),
	atLeast("canary_requests", minRequests, "requests behind it"),
	atLeast("mirror_received_ratio", 0.99, "requests that green received for each mirrored one"),
	exactly("mirror_client_errors", 0, "client requests that failed while mirrored"),
	atLeast("mirror_requests", minRequests, "requests behind the two figures above"),
	exactly("step_failed", 0, "requests lost in the steps of blue-green"),
	atLeast("step_requests", minRequests, "requests of the step that had fewest"),
	exactly("import_home_percent", 100, "requests of a pod of eu-west to the clusterset's name served in its region"),
	exactly("import_failed", 0, "requests of it lost while two of three clusters withdrew their exports and one came back"),
	atLeast("import_requests", minRequests, "requests behind it"),
	within("import_cut_failed_percent", 50, 25, "requests of it lost to one of two clusters that is cut off: what kube-proxy alone does"),
	atMost("import_cut_cured_seconds", 5, "admin takes the cluster's exports away on the hub -> nothing fails"),
	{"capacity_10", []float64{9, 0}, []float64{11, 0.2}, "10 requests per second in us, served by [us, eu]: 10/0"},
	{"capacity_30", []float64{18, 9}, []float64{22, 11}, "30: 20/10"},
	{"capacity_60", []float64{27, 27}, []float64{33, 33}, "60: 30/30"},
	atMost("overflow_seconds", 2, "first request at 30 per second -> split is 20/10 and stays"),
	exactly("overflow_replicas", 2, "replicas of the hub on which the edges of these clients are meanwhile"),
	exactly("drain_failed", 0, "requests lost while a cluster was drained and got its requests back"),
	atLeast("drain_requests", 10000, "requests behind it"),
	atMost("drain_off_line_points", 10, "points that its share of any import was off the straight line, in any second"),
	exactly("drain_left", 0, "requests that it answered once it was drained"),
	exactly("tenant_websockets_closed", 0, "WebSockets of one team closed by what others do to the same Gateway"),
	atLeast("tenant_websockets", 8, "WebSockets behind it"),
	atLeast("tenant_changes", 100, "routes, hostnames, listeners and certificates that others made or removed meanwhile"),
	exactly("cut_failed", 0, "GETs lost when a cluster's link went down"),
	atLeast("cut_requests", minRequests, "requests behind it"),
	atMost("cut_recovered_seconds", 2, "link down -> nothing failed, at most 1 % took over 200 ms"),
	atMost("cut_return_seconds", 30, "link up -> the cluster's part is within 10 % of what it was"),
	exactly("sunset_failed", 0, "GETs lost while all clusters of a region were cut off, each region in turn"),
	atLeast("sunset_requests", minRequests, "requests of the region that had fewest"),
	exactly("rollout_failed", 0, "requests lost in a rolling update in every cluster: GETs, and with a preStop sleep POSTs"),
	atLeast("rollout_requests", minRequests, "requests of the method that had fewest"),
	exactly("edge_rollout_failed", 0, "requests lost while one of a region's two edges was replaced"),
	atLeast("edge_rollout_requests", minRequests, "requests behind it"),
	exactly("hubdown_failed", 0, "requests lost while all replicas of the hub were dead for 30 s, overflow in place, and restarted"),
	atLeast("hubdown_requests", minRequests, "requests behind it"),
	exactly("hub_restart_changed_resources", 0, "resources that the restarted hub changed on any edge"),
	exactly("replica_failed", 0, "requests lost while one replica of the hub, then the leader was killed, and both were cut from each other for 60 s"),
	atLeast("replica_requests", 10000, "requests behind it"),
	atMost("replica_share_points", 2, "points that a cluster's share was off what it was before, in any 5 s of it"),
	exactly("replica_changed_resources", 0, "listeners, routes, clusters and certificates that were sent to any edge meanwhile"),
	exactly("replica_late_changes", 0, "resources of any kind that were sent later than 15 s after the last replica was back"),
	exactly("upgrade_failed", 0, "requests lost while the hub was upgraded replica by replica, overflow in place"),
	atLeast("upgrade_requests", minRequests, "requests behind it"),
	exactly("frozen_api_cut_failed", 0, "GETs lost while the hub's API server was frozen for 60 s and a cluster was cut off"),
	atLeast("frozen_api_requests", minRequests, "requests behind it"),
	atMost("frozen_api_overflow_seconds", 2, "first request at 30 per second in the freeze -> split is 20/10 and stays"),
	exactly("frozen_api_restarts", 0, "restarts of the hub and the agents in the freeze"),
	exactly("badroute_neighbour_failed", 0, "requests of neighbours lost to a broken route and a broken certificate"),
	atLeast("badroute_neighbour_requests", minRequests, "requests behind it"),
	exactly("badroute_neighbour_change_arrived", 1, "a neighbour's next change arrived beside them"),
	exactly("badroute_reported", 2, "broken objects that say what is wrong"),
}

func exactly(figure string, value float64, what string) Bound {
	return Bound{figure, []float64{value}, []float64{value}, what}
}

func within(figure string, value, tolerance float64, what string) Bound {
	return Bound{figure, []float64{value - tolerance}, []float64{value + tolerance}, what}
}

func atMost(figure string, value float64, what string) Bound {
	return Bound{figure, []float64{0}, []float64{value}, what}
}

func atLeast(figure string, value float64, what string) Bound {
	return Bound{figure, []float64{value}, []float64{math.Inf(1)}, what}
}

// Holds says whether values are within the bound.
func (b Bound) Holds(values []float64) bool {
	if len(values) != len(b.Low) {
		return false
	}
	for i, v := range values {
		if math.IsNaN(v) || v < b.Low[i] || v > b.High[i] {
			return false
		}
	}
	return true
}

// Expected gives the bound as text: "= 0", "<= 2", "9..11 0..0.2".
func (b Bound) Expected() string {
	parts := make([]string, len(b.Low))
	for i := range b.Low {
		switch low, high := number(b.Low[i]), number(b.High[i]); {
		case low == high:
			parts[i] = "= " + low
		case math.IsInf(b.High[i], 1):
			parts[i] = ">= " + low
		case b.Low[i] == 0 && len(b.Low) == 1:
			parts[i] = "<= " + high
		default:
			parts[i] = low + ".." + high
		}
	}
	return strings.Join(parts, " ")
}

// Broken says how the figure is not within its bound; empty where it is.
func (b Bound) Broken(figures Figures) string {
	switch values, measured := figures[b.Figure]; {
	case !measured:
		return fmt.Sprintf("%s was not measured, want %s (%s)", b.Figure, b.Expected(), b.What)
	case !b.Holds(values):
		return fmt.Sprintf("%s is %s, want %s (%s)", b.Figure, Numbers(values), b.Expected(), b.What)
	default:
		return ""
	}
}

// Judge lists the bounds that do not hold; empty where the demo has passed.
func Judge(figures Figures) []string {
	var broken []string
	for _, b := range Bounds {
		if text := b.Broken(figures); text != "" {
			broken = append(broken, text)
		}
	}
	return broken
}

// Numbers prints values with as many digits as people need.
func Numbers(values []float64) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = number(v)
	}
	return strings.Join(parts, " / ")
}

func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64)
}

// JSON is out/demo.json: {"passed": bool, "figures": {name: number or [numbers]}}.
// A figure that is no number (a part of no requests) is left out: JSON has no NaN.
func (f Figures) JSON() ([]byte, error) {
	values := map[string]any{}
	for name, v := range f {
		if slices.ContainsFunc(v, func(n float64) bool { return math.IsNaN(n) || math.IsInf(n, 0) }) {
			continue
		}
		if len(v) == 1 {
			values[name] = v[0]
		} else {
			values[name] = v
		}
	}
	out, err := json.MarshalIndent(map[string]any{"passed": len(Judge(f)) == 0, "figures": values}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write figures: %w", err)
	}
	return append(out, '\n'), nil
}
