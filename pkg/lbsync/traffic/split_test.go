package traffic

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// The stories of Split: each line of input is a member or a region's demand, each line of output says where the
// requests of a region go, in requests per second (or parts of a million where there is no demand).
func TestSplitStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/split.txt", func(t *testing.T, d *datadriven.TestData) string {
		return describeShares(t, readSplit(t, d))
	})
}

// readSplit reads `member us-west us ready=2 scaler=0.5 drained=0.25` and `demand us 30 nearest=eu,ap heldout=us-west,us-east
// dead=us-west`.
func readSplit(t *testing.T, d *datadriven.TestData) SplitInput {
	var in SplitInput
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "rate":
			in.Rate = number(t, arg.Vals[0])
		case "mode":
			in.Mode = model.Mode(arg.Vals[0])
		default:
			t.Fatalf("unknown argument %q", arg.Key)
		}
	}
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		options := map[string]string{}
		for _, option := range fields[3:] {
			key, value, _ := strings.Cut(option, "=")
			options[key] = value
		}
		switch fields[0] {
		case "member":
			m := Capacity{Cluster: fleet.ClusterName(fields[1]), Region: fields[2], Scaler: 1}
			m.Ready, _ = strconv.Atoi(options["ready"])
			if s, ok := options["scaler"]; ok {
				m.Scaler = number(t, s)
			}
			if d, ok := options["drained"]; ok {
				m.Drained = number(t, d)
			}
			in.Members = append(in.Members, m)
		case "demand":
			r := RegionDemand{Region: fields[1], Demand: number(t, fields[2])}
			for n := range strings.SplitSeq(options["nearest"], ",") {
				r.Nearest = append(r.Nearest, n)
			}
			for n := range strings.SplitSeq(options["heldout"], ",") {
				r.HeldOut = append(r.HeldOut, fleet.ClusterName(n))
			}
			for n := range strings.SplitSeq(options["dead"], ",") {
				r.Dead = append(r.Dead, fleet.ClusterName(n))
			}
			in.Regions = append(in.Regions, r)
		default:
			t.Fatalf("unknown line %q", fields[0])
		}
	}
	return in
}

func number(t *testing.T, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	testkit.Must(t, err)
	return f
}

func describeShares(t *testing.T, in SplitInput) string {
	var b strings.Builder
	demand := map[string]float64{}
	for _, r := range in.Regions {
		demand[r.Region] = r.Demand
	}
	for _, r := range Split(in) {
		fmt.Fprintf(&b, "%s:", r.Region)
		sum := uint32(0)
		for _, s := range r.Shares {
			sum += s.Parts
			if demand[r.Region] > 0 {
				fmt.Fprintf(&b, " %s %.4g", s.Cluster, demand[r.Region]*float64(s.Parts)/TotalParts)
			} else {
				fmt.Fprintf(&b, " %s %d ppm", s.Cluster, s.Parts)
			}
		}
		switch {
		case sum == 0:
			b.WriteString(" nobody")
		case sum != TotalParts:
			t.Errorf("parts of %s sum to %d", r.Region, sum)
		}
		if r.Overflow > 0 {
			fmt.Fprintf(&b, " (overflow %.3g %%)", float64(r.Overflow)/1e4)
		}
		if len(r.HeldOut) > 0 {
			fmt.Fprintf(&b, " (only probed: %v)", r.HeldOut)
		}
		if len(r.Dead) > 0 {
			fmt.Fprintf(&b, " (dead: %v)", r.Dead)
		}
		b.WriteString("\n")
	}
	return b.String()
}
