package lbsync

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// The stories of Assign. Input lines are
//
//	backend blue 90 [clusters=a,b] [unchecked]  a weighted backend of the assignment (svc:name is a Service of the hub)
//	part blue us-west us 10.1.0.1 10.1.0.2~ endpoints; ~ terminates but serves, ! is not ready
//	fallback green 10                       the same, of the fallback
//	share blue us-west 600000 [dead]        of region us
func TestAssignStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/assign.txt", func(t *testing.T, d *datadriven.TestData) string {
		in, parts := parseAssign(t, d)
		out := Assign(in)
		for _, b := range in.Assignment.Backends {
			for _, p := range parts[b.Backend] {
				if !reflect.DeepEqual(p.Endpoints, clonePart(p).Endpoints) {
					t.Error("input changed")
				}
			}
		}
		return describeAssignment(out)
	})
}

func clonePart(p Part) Part {
	p.Endpoints = append([]fleet.Endpoint(nil), p.Endpoints...)
	return p
}

func backendNamed(name string) fleet.Backend {
	kind := fleet.Import
	if after, ok := strings.CutPrefix(name, "svc:"); ok {
		kind, name = fleet.Service, after
	}
	return fleet.Backend{Kind: kind, Name: fleet.ServiceName{Namespace: "shop", Name: name}}
}

func parseAssign(t *testing.T, d *datadriven.TestData) (AssignInput, map[fleet.Backend][]Part) {
	in := AssignInput{Assignment: model.Assignment{Key: "k"}, Region: "us"}
	parts := map[fleet.Backend][]Part{}
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		b := backendNamed(fields[1])
		switch fields[0] {
		case "backend", "fallback":
			weight, _ := strconv.Atoi(fields[2])
			backend := model.WeightedBackend{Backend: b, Port: 80, Weight: uint32(weight)}
			for _, option := range fields[3:] {
				if option == "unchecked" {
					backend.Unchecked = true
					continue
				}
				for c := range strings.SplitSeq(strings.TrimPrefix(option, "clusters="), ",") {
					backend.Clusters = append(backend.Clusters, fleet.ClusterName(c))
				}
			}
			if fields[0] == "fallback" {
				in.Assignment.Fallback = append(in.Assignment.Fallback, backend)
				continue
			}
			in.Assignment.Backends = append(in.Assignment.Backends, backend)
		case "part":
			p := Part{Backend: b, Cluster: fleet.ClusterName(fields[2]), Place: fleet.Place{Region: fields[3]}}
			for _, address := range fields[4:] {
				state := fleet.Ready
				switch address[len(address)-1] {
				case '~':
					state = fleet.Draining
				case '!':
					state = fleet.NotReady
				}
				p.Endpoints = append(p.Endpoints, fleet.Endpoint{Cluster: p.Cluster, Address: netip.MustParseAddr(strings.TrimRight(address, "~!")), Port: 8080, State: state})
			}
			parts[b] = append(parts[b], p)
		case "share":
			n, _ := strconv.Atoi(fields[3])
			in.addShare(b, traffic.Share{Cluster: fleet.ClusterName(fields[2]), Parts: uint32(n)}, len(fields) > 4)
		default:
			t.Fatalf("unknown line %q", fields[0])
		}
	}
	in.Parts = func(b model.WeightedBackend) []Part { return parts[b.Backend] }
	return in, parts
}

func (in *AssignInput) addShare(b fleet.Backend, s traffic.Share, dead bool) {
	k := slices.IndexFunc(in.Shares, func(s traffic.BackendShares) bool { return s.Backend == b })
	if k < 0 {
		k = len(in.Shares)
		in.Shares = append(in.Shares, traffic.BackendShares{Backend: b, RegionShares: traffic.RegionShares{Region: "us"}})
	}
	shares := &in.Shares[k]
	shares.Shares = append(shares.Shares, s)
	if dead {
		shares.Dead = append(shares.Dead, s.Cluster)
	}
}

func describeAssignment(a LoadAssignment) string {
	var b strings.Builder
	for _, l := range a.Localities {
		fmt.Fprintf(&b, "%7d %s in %q:", l.Weight, l.SubZone(), l.Place.Region)
		if l.Later {
			b.WriteString(" later")
		}
		for _, e := range l.Endpoints {
			fmt.Fprintf(&b, " %s", e)
		}
		if l.Unchecked {
			b.WriteString(" unchecked")
		}
		b.WriteString("\n")
	}
	if a.Drop > 0 {
		fmt.Fprintf(&b, "%7d answered 503\n", a.Drop)
	}
	if len(a.Overlaps) > 0 {
		fmt.Fprintf(&b, "overlaps: %v\n", a.Overlaps)
	}
	return b.String()
}

func TestSubZoneNamesTheLocality(t *testing.T) {
	for _, l := range []Locality{
		{Cluster: "us-west", Backend: backendNamed("web")},
		{Cluster: "hub", Backend: backendNamed("svc:web")},
		{Cluster: "svc", Backend: fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "svc", Name: "svc"}}},
	} {
		cluster, backend, ok := ParseSubZone(l.SubZone())
		if !ok || cluster != l.Cluster || backend != l.Backend {
			t.Errorf("%s: %v %v %v", l.SubZone(), cluster, backend, ok)
		}
	}
	for _, s := range []string{"", "a/b", "a/b/c/d", "a//c", "a/svc/b", "a/svc/b/", "/a/b", "a/svc/b/c/d"} {
		if c, b, ok := ParseSubZone(s); ok && s != "a/svc/b" {
			t.Errorf("%q is %v %v", s, c, b)
		}
	}
}

func drawAssign(t *rapid.T) (AssignInput, map[fleet.Backend][]Part) {
	in := AssignInput{Assignment: model.Assignment{Key: "k"}, Region: "us"}
	parts := map[fleet.Backend][]Part{}
	for i := range rapid.IntRange(1, 3).Draw(t, "backends") {
		b := backendNamed(fmt.Sprint("web", i))
		in.Assignment.Backends = append(in.Assignment.Backends, model.WeightedBackend{Backend: b, Port: 80, Weight: rapid.Uint32Range(1, 100).Draw(t, "weight")})
		var capacities []traffic.Capacity
		for k := range rapid.IntRange(0, 3).Draw(t, "members") {
			p := Part{Backend: b, Cluster: fleet.ClusterName(fmt.Sprint("c", k)), Place: fleet.Place{Region: rapid.SampledFrom([]string{"ap", "eu", "sa", "us"}).Draw(t, "region")}}
			for range rapid.IntRange(0, 4).Draw(t, "endpoints") {
				p.Endpoints = append(p.Endpoints, fleet.Endpoint{Cluster: p.Cluster, Port: 80,
					Address: netip.AddrFrom4([4]byte{10, byte(k), 0, rapid.Byte().Draw(t, "host") % 8}),
					State:   rapid.SampledFrom([]fleet.EndpointState{fleet.Ready, fleet.Ready, fleet.Draining, fleet.NotReady}).Draw(t, "state")})
			}
			parts[b] = append(parts[b], p)
			capacities = append(capacities, traffic.Capacity{Cluster: p.Cluster, Region: p.Place.Region, Ready: CountReady(p.Endpoints), Scaler: 1})
		}
		shares := traffic.Split(traffic.SplitInput{Members: capacities, Regions: []traffic.RegionDemand{{Region: "us", Demand: 1}}})
		in.Shares = append(in.Shares, traffic.BackendShares{Backend: b, RegionShares: shares[0]})
	}
	in.Parts = func(b model.WeightedBackend) []Part { return parts[b.Backend] }
	return in, parts
}

func TestAssignLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, parts := drawAssign(t)
		a := Assign(in)
		sum, seen := uint32(0), map[netip.AddrPort]bool{}
		refuges := uint32(0)
		for _, l := range a.Localities {
			sum += l.Weight
			if l.Weight == 1 {
				refuges++
			}
			for _, e := range l.Endpoints {
				if seen[e] {
					t.Fatalf("%s is in two localities", e)
				}
				seen[e] = true
			}
			if l.Weight == 0 || len(l.Endpoints) == 0 {
				t.Fatalf("locality %v", l)
			}
		}
		if len(a.Localities) > 0 && (sum < traffic.TotalParts || sum > traffic.TotalParts+refuges) {
			t.Fatalf("weights sum to %d with %d refuges", sum, refuges)
		}
		if len(a.Localities) == 0 && a.Drop != traffic.TotalParts {
			t.Fatalf("no locality, but only %d dropped", a.Drop)
		}
		other := in
		other.Assignment.Backends = rapid.Permutation(in.Assignment.Backends).Draw(t, "backends")
		other.Shares = rapid.Permutation(in.Shares).Draw(t, "shares")
		other.Parts = func(b model.WeightedBackend) []Part {
			shuffled := append([]Part(nil), parts[b.Backend]...)
			for i := range shuffled {
				shuffled[len(shuffled)-1-i] = clonePart(parts[b.Backend][i])
				if e := shuffled[len(shuffled)-1-i].Endpoints; len(e) > 1 {
					e[0], e[len(e)-1] = e[len(e)-1], e[0]
				}
			}
			return shuffled
		}
		if b := Assign(other); !reflect.DeepEqual(a, b) {
			t.Fatalf("order matters:\n%v\n%v", a, b)
		}
	})
}

// drawFallback is drawAssign with a fallback: backends "other-...", which have some of the same addresses.
func drawFallback(t *rapid.T) (AssignInput, map[fleet.Backend][]Part) {
	in, parts := drawAssign(t)
	other, more := drawAssign(t)
	for _, b := range other.Assignment.Backends {
		name := backendNamed("other-" + b.Backend.Name.Name)
		shares, _ := other.sharesOf(b.Backend)
		shares.Backend = name
		in.Shares = append(in.Shares, shares)
		parts[name], b.Backend = more[b.Backend], name
		in.Assignment.Fallback = append(in.Assignment.Fallback, b)
	}
	return in, parts
}

// A fallback changes no proportion of the own backends while none of them is down, and gets far less than each of them.
// Addresses and weights stay within Envoy's limits, and what is dropped or learned stays the same. Where a backend is
// down, the weights still sum to traffic.TotalParts.
func TestFallbackLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, _ := drawFallback(t)
		for i := range in.Shares {
			if rapid.IntRange(0, 3).Draw(t, "down") == 0 {
				in.Shares[i].Dead = []fleet.ClusterName{"c0", "c1", "c2"}
			}
		}
		alone := in
		alone.Assignment.Fallback = nil
		want, got := Assign(alone), Assign(in)
		sum, seen, least := uint64(0), map[netip.AddrPort]bool{}, uint32(math.MaxUint32)
		var own, spares []Locality
		for _, l := range got.Localities {
			sum += uint64(l.Weight)
			for _, e := range l.Endpoints {
				if seen[e] {
					t.Fatalf("%s is in two localities", e)
				}
				seen[e] = true
			}
			if strings.HasPrefix(l.Backend.Name.Name, "other-") {
				spares = append(spares, l)
			} else {
				own, least = append(own, l), min(least, l.Weight)
			}
		}
		if got.Drop != want.Drop || !reflect.DeepEqual(got.Shares, want.Shares) {
			t.Fatalf("a fallback changes what is dropped or learned: %v %v", got, want)
		}
		if b := in.resolveList(in.Assignment.Backends, 0, true); b.down > 0 && b.up+in.resolveList(in.Assignment.Fallback, 0, false).up > 0 {
			if sum < traffic.TotalParts || sum > traffic.TotalParts+uint64(len(got.Localities)) {
				t.Fatalf("weights sum to %d", sum)
			}
			return
		}
		if sum > math.MaxUint32 {
			t.Fatalf("weights sum to %d", sum)
		}
		for i := range own {
			if len(spares) > 0 {
				own[i].Weight /= spareWeightFactor
			}
		}
		for _, l := range spares {
			if l.Weight*1000 > least {
				t.Fatalf("a spare of %d beside %d", l.Weight, least)
			}
		}
		if !reflect.DeepEqual(own, want.Localities) {
			t.Fatalf("a fallback changes the others:\n%v\n%v", own, want.Localities)
		}
	})
}

// What Assign sends to a backend that is up is what DemandFractions says, but for rounding; a backend that is down keeps
// its own demand.
func TestDemandFractionsAreWhatIsSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, parts := drawFallback(t)
		for i := range in.Shares {
			if rapid.Bool().Draw(t, "down") {
				in.Shares[i].Dead = []fleet.ClusterName{"c0", "c1", "c2"}
			}
			for _, p := range parts[in.Shares[i].Backend] { // an address is one backend's
				for k := range p.Endpoints {
					address := p.Endpoints[k].Address.As4()
					address[2] = byte(i)
					p.Endpoints[k].Address = netip.AddrFrom4(address)
				}
			}
		}
		a, demand := Assign(in), DemandFractions(in)
		sent, spares := map[fleet.Backend]float64{}, false
		for _, l := range a.Localities {
			sent[l.Backend] += float64(l.Weight) / traffic.TotalParts * (1 - float64(a.Drop)/traffic.TotalParts)
			spares = spares || l.Weight > 2*traffic.TotalParts
		}
		if spares || len(a.Localities) == 0 {
			return // the fallback has nothing
		}
		own, fallback := in.resolve()
		for _, b := range slices.Concat(own.backends, fallback.backends) {
			if b.state == up && math.Abs(sent[b.Backend]-demand[b.Backend]) > 1e-4 {
				t.Fatalf("%s is sent %v and has a demand of %v", b.Backend, sent[b.Backend], demand[b.Backend])
			}
		}
		for _, b := range fallback.backends {
			if b.state != up && demand[b.Backend] > 0 {
				t.Fatalf("%s cannot take over but has a demand", b.Backend)
			}
		}
		for _, b := range own.backends {
			if want := b.weight / (own.up + own.down + own.dropped); b.state != up && math.Abs(demand[b.Backend]-want) > 1e-9 {
				t.Fatalf("%s has a demand of %v, want its own %v", b.Backend, demand[b.Backend], want)
			}
		}
	})
}
