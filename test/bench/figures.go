package bench

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Figure is one measured quantity: a distribution of N samples, or with N = 1 a
// single value, which is then all of P50, P99 and Max. Its name ends in its unit.
type Figure struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	N   int     `json:"n"`
}

// Figures of one size, by name.
type Figures map[string]Figure

// Value is a single value.
func Value(v float64) Figure { return Figure{P50: round(v), P99: round(v), Max: round(v), N: 1} }

// Millis is the distribution of durations in milliseconds. Percentiles are
// nearest-rank: the smallest sample that at least p percent do not exceed.
func Millis(samples []time.Duration) Figure {
	if len(samples) == 0 {
		return Figure{}
	}
	sorted := slices.Sorted(slices.Values(samples))
	at := func(p float64) float64 {
		rank := int(math.Ceil(p / 100 * float64(len(sorted))))
		return millis(sorted[max(rank, 1)-1])
	}
	return Figure{P50: at(50), P99: at(99), Max: at(100), N: len(sorted)}
}

func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

// round drops the digits that mean nothing on a shared machine.
func round(v float64) float64 { return math.Round(v*100) / 100 }

// Row is one figure, and what it means.
type Row struct{ Name, Tell string }

// Rows are the figures in the order in which a change travels.
var Rows = []Row{
	{"slice_to_ack_ms", "hub slice write -> last Envoy's ACK"},
	{"slice_push_to_ack_ms", "  of it Envoy's own: response left -> ACK"},
	{"slice_bare_ms", "  bare client: the same write -> watch event"},
	{"route_to_push_ms", "route write -> response leaves the hub"},
	{"route_to_ack_ms", "route write -> last Envoy's ACK"},
	{"route_push_to_ack_ms", "  of it Envoy's own: response left -> ACK"},
	{"route_bare_ms", "  bare client: the same write -> watch event"},
	{"member_to_ack_ms", "member slice write -> ACK, the whole way"},
	{"member_bare_ms", "  bare relay: member watch, hub write, hub watch"},
	{"push_to_ack_log_mean_ms", "mean push -> ACK of assignments by the log"},
	{"push_to_ack_histogram_mean_ms", "  the same by the hub's histogram"},
	{"rss_peak_mb", "hub, peak RSS up to here"},
	{"cpu_idle_percent", "hub, CPU at rest, of one core"},
	{"edge_cpu_idle_percent", "one Envoy, CPU at rest, of one core"},
	{"warm_ms", "hub restart, Envoys keep their state"},
	{"warm_connected_ms", "  of it until the first edge is back"},
	{"warm_other_resources", "  resources sent beside the two that changed"},
	{"warm_cpu_s", "  CPU seconds"},
	{"warm_rss_mb", "  peak RSS"},
	{"cold_ms", "hub restart, one fresh Envoy -> its last ACK"},
	{"cold_connected_ms", "  of it until that edge is connected"},
	{"cold_cpu_s", "  CPU seconds"},
	{"cold_rss_mb", "  peak RSS"},
	{"burst_export_to_import_ms", "200 exports at once -> their imports"},
	{"burst_export_to_ack_ms", "200 exports at once -> last Envoy's ACK"},
	{"burst_export_cpu_s", "  CPU seconds of all programs of the lab"},
	{"burst_change_to_ack_ms", "all 200 change at once -> last Envoy's ACK"},
	{"imports_ready_ms", "200 exports at once -> IP and endpoints in 2 members"},
	{"imports_bare_ms", "  bare client: the same writes, from the first"},
	{"imports_change_ms", "one member's slice -> 2 other members'"},
	{"imports_changes_ms", "all 200 change at once -> 2 other members"},
	{"imports_hub_writes", "  writes on the hub for each change of a slice"},
	{"imports_source_writes", "  writes in the exporting member"},
	{"grow_s", "creating this size's objects until all is ACKed, s"},
}

// ScaleRows are the figures of ScalePart.
var ScaleRows = []Row{
	{"scale_pushed_s", "all members export at once: until all is written, s"},
	{"scale_routed_s", "all routes at once -> every edge has all, s"},
	{"scale_settled_s", "  until all statuses are written, too, s"},
	{"scale_rss_peak_mb", "the larger hub replica: peak RSS while the fleet grew, MB"},
	{"scale_rss_peak_other_mb", "  the other one"},
	{"scale_rss_rest_mb", "  the larger one's RSS at rest, MB"},
	{"scale_rss_rest_other_mb", "  the other one's"},
	{"scale_cpu_idle_percent", "  CPU at rest, of one core"},
	{"scale_slice_to_ack_ms", "member's slice write -> last of 4 Envoys' ACK"},
	{"scale_slice_push_to_ack_ms", "  of it Envoy's own: response left -> ACK"},
	{"scale_slice_to_all_ms", "  -> ACK of the last edge of 10 pools"},
	{"scale_slice_bare_ms", "  bare client: the same write -> watch event"},
	{"scale_readers_whole_s", "a reader for each member, all at once, s"},
	{"scale_readers_cpu_s", "  CPU seconds of both replicas"},
	{"scale_reader_mb", "  what one reader reads, MB"},
	{"scale_slice_to_readers_ms", "member's slice write -> the last reader"},
	{"scale_read_slice_to_ack_ms", "with readers: slice write -> last Envoy's ACK"},
	{"scale_read_slice_push_to_ack_ms", "  of it Envoy's own: response left -> ACK"},
	{"scale_read_slice_to_all_ms", "  -> ACK of the last edge of 10 pools"},
	{"scale_read_slice_bare_ms", "  bare client: the same write -> watch event"},
	{"scale_load_cpu_percent", "16 edges report 100 clusters each second: CPU, %"},
	{"scale_link_kb_per_s", "  sent to the other replica, kB/s"},
	{"scale_gossip_kb_per_s", "  a replica's gossip and beats with all agents, kB/s"},
	{"scale_start_ms", "replica killed, with readers and load: start -> ready"},
	{"scale_start_bare_ms", "  bare client: list of slices and exports"},
	{"scale_start_cpu_s", "  its CPU seconds until it is ready"},
	{"scale_start_all_cpu_s", "  CPU seconds of all programs until then"},
	{"scale_start_peak_mb", "  peak RSS, 10 s later"},
	{"scale_frozen_ms", "the same without an API server (snapshot)"},
	{"scale_frozen_cpu_s", "  its CPU seconds until it is ready"},
	{"scale_frozen_all_cpu_s", "  CPU seconds of all programs until then"},
	{"scale_frozen_peak_mb", "  peak RSS, 10 s later"},
}

// Table writes all sizes beside each other, one row for each figure.
func Table(w io.Writer, sizes []int, all map[string]Figures) error {
	columns := make([]string, len(sizes))
	for i, n := range sizes {
		columns[i] = strconv.Itoa(n)
	}
	return table(w, Rows, columns, all)
}

// ScaleTable writes the figures of ScalePart for a number of members.
func ScaleTable(w io.Writer, members int, f Figures) error {
	column := fmt.Sprintf("%d members", members)
	return table(w, ScaleRows, []string{column}, map[string]Figures{column: f})
}

func table(w io.Writer, rows []Row, columns []string, all map[string]Figures) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "p50 / p99 / max\t%s\t\n", strings.Join(columns, "\t"))
	for _, row := range rows {
		fmt.Fprintf(t, "%-50s\t", row.Tell)
		for _, c := range columns {
			fmt.Fprintf(t, "%s\t", cell(all[c][row.Name]))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func cell(f Figure) string {
	switch f.N {
	case 0:
		return "-"
	case 1:
		return fmt.Sprint(f.P50)
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f", f.P50, f.P99, f.Max)
}
