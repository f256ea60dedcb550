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
)

// The stories of Assign. Input lines are
//
//	backend blue 90 [clusters=a,b] [unchecked]  a weighted backend of the assignment (svc:name is a Service of the hub)
//	part blue us-west us 10.1.0.1 10.1.0.2~ endpoints; ~ terminates but serves, ! is not ready
//	fallback green 10                       the same, of the fallback
//	share blue us-west 600000 [dead]        of region us
func TestAssignStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/assign.txt", func(t *testing.T, d *datadriven.TestData) string {
		in, parts := readAssign(t, d)
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

func readAssign(t *testing.T, d *datadriven.TestData) (AssignInput, map[fleet.Backend][]Part) {
	in := AssignInput{Assignment: model.Assignment{Key: "k"}, Region: "us"}
	parts := map[fleet.Backend][]Part{}
	for line := range strings.Lines(d.Input) {
		w := strings.Fields(line)
		b := backendNamed(w[1])
		switch w[0] {
		case "backend", "fallback":
			weight, _ := strconv.Atoi(w[2])
			backend := model.WeightedBackend{Backend: b, Port: 80, Weight: uint32(weight)}
			for _, option := range w[3:] {
				if option == "unchecked" {
					backend.Unchecked = true
					continue
				}
				for c := range strings.SplitSeq(strings.TrimPrefix(option, "clusters="), ",") {
					backend.Clusters = append(backend.Clusters, fleet.ClusterName(c))
				}
			}
			if w[0] == "fallback" {
				in.Assignment.Fallback = append(in.Assignment.Fallback, backend)
				continue
			}
			in.Assignment.Backends = append(in.Assignment.Backends, backend)
		case "part":
			p := Part{Backend: b, Cluster: fleet.ClusterName(w[2]), Place: fleet.Place{Region: w[3]}}
			for _, address := range w[4:] {
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
			n, _ := strconv.Atoi(w[3])
			in.share(b, Share{Cluster: fleet.ClusterName(w[2]), Parts: uint32(n)}, len(w) > 4)
		default:
			t.Fatalf("unknown word %q", w[0])
		}
	}
	in.Parts = func(b model.WeightedBackend) []Part { return parts[b.Backend] }
	return in, parts
}

func (in *AssignInput) share(b fleet.Backend, s Share, dead bool) {
	k := slices.IndexFunc(in.Shares, func(s BackendShares) bool { return s.Backend == b })
	if k < 0 {
		k = len(in.Shares)
		in.Shares = append(in.Shares, BackendShares{Backend: b, RegionShares: RegionShares{Region: "us"}})
	}
	of := &in.Shares[k]
	of.Shares = append(of.Shares, s)
	if dead {
		of.Dead = append(of.Dead, s.Cluster)
	}
}

func describeAssignment(a LoadAssignment) string {
	var b strings.Builder
	for _, l := range a.Localities {
		fmt.Fprintf(&b, "%7d %s in %q:", l.Weight, l.SubZone(), l.Place.Region)
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
		var capacities []Capacity
		for k := range rapid.IntRange(0, 3).Draw(t, "members") {
			p := Part{Backend: b, Cluster: fleet.ClusterName(fmt.Sprint("c", k)), Place: fleet.Place{Region: rapid.SampledFrom(regionNames).Draw(t, "region")}}
			for range rapid.IntRange(0, 4).Draw(t, "endpoints") {
				p.Endpoints = append(p.Endpoints, fleet.Endpoint{Cluster: p.Cluster, Port: 80,
					Address: netip.AddrFrom4([4]byte{10, byte(k), 0, rapid.Byte().Draw(t, "host") % 8}),
					State:   rapid.SampledFrom([]fleet.EndpointState{fleet.Ready, fleet.Ready, fleet.Draining, fleet.NotReady}).Draw(t, "state")})
			}
			parts[b] = append(parts[b], p)
			capacities = append(capacities, Capacity{Cluster: p.Cluster, Region: p.Place.Region, Ready: ReadyIn(p.Endpoints), Scaler: 1})
		}
		shares := Split(SplitInput{Members: capacities, Regions: []RegionDemand{{Region: "us", Demand: 1}}})
		in.Shares = append(in.Shares, BackendShares{Backend: b, RegionShares: shares[0]})
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
		if len(a.Localities) > 0 && (sum < Whole || sum > Whole+refuges) {
			t.Fatalf("weights sum to %d with %d refuges", sum, refuges)
		}
		if len(a.Localities) == 0 && a.Drop != Whole {
			t.Fatalf("nobody answers, but only %d dropped", a.Drop)
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

// A fallback changes nothing between the others while none of their backends is down, and gets far less than each of
// them. It never takes more addresses or weight than Envoy does, nor changes what is dropped or learned. Where somebody
// is down, the parts still sum to Whole.
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
		if b := in.gather(in.Assignment.Backends); b.down > 0 && b.up+in.gather(in.Assignment.Fallback).up > 0 {
			if sum < Whole || sum > Whole+uint64(len(got.Localities)) {
				t.Fatalf("weights sum to %d", sum)
			}
			return
		}
		if sum > math.MaxUint32 {
			t.Fatalf("weights sum to %d", sum)
		}
		for i := range own {
			if len(spares) > 0 {
				own[i].Weight /= spareScale
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

// What Assign sends to a backend that is up is what Demanded says, but for rounding; whoever is down keeps its own demand.
func TestDemandedIsWhatIsSent(t *testing.T) {
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
		a, demanded := Assign(in), Demanded(in)
		sent, spares := map[fleet.Backend]float64{}, false
		for _, l := range a.Localities {
			sent[l.Backend] += float64(l.Weight) / Whole * (1 - float64(a.Drop)/Whole)
			spares = spares || l.Weight > 2*Whole
		}
		if spares || len(a.Localities) == 0 {
			return // the fallback has nothing
		}
		own, fallback := in.gatherAll()
		for _, b := range slices.Concat(own.backends, fallback.backends) {
			if b.state == up && math.Abs(sent[b.Backend]-demanded[b.Backend]) > 1e-4 {
				t.Fatalf("%s is sent %v and has a demand of %v", b.Backend, sent[b.Backend], demanded[b.Backend])
			}
		}
		for _, b := range fallback.backends {
			if b.state != up && demanded[b.Backend] > 0 {
				t.Fatalf("%s cannot take over and has a demand", b.Backend)
			}
		}
		for _, b := range own.backends {
			if want := b.weight / (own.up + own.down + own.dropped); b.state != up && math.Abs(demanded[b.Backend]-want) > 1e-9 {
				t.Fatalf("%s has a demand of %v, want its own %v", b.Backend, demanded[b.Backend], want)
			}
		}
	})
}

// Nothing is lost by a takeover, who is down keeps a small probe, and the others their proportions.
func TestTakeoverLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weight := rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(1, 1e6))
		up, down, fallback := weight.Draw(t, "up"), weight.Draw(t, "down"), weight.Draw(t, "fallback")
		toUp, toDown, toFallback := Takeover(up, down, fallback)
		if got, want := up*toUp+down*toDown+fallback*toFallback, up+down; math.Abs(got-want) > want*1e-9 {
			t.Fatalf("%v of %v is sent", got, want)
		}
		if down == 0 || up+fallback == 0 {
			if toUp != 1 || toDown != 1 || toFallback != 0 {
				t.Fatal("nobody is down, or nobody is up, and weights move")
			}
			return
		}
		if probe := down * toDown; probe <= 0 || probe > down/10*(1+1e-9) || probe > (up+down+fallback)/100*(1+1e-9) {
			t.Fatalf("a probe of %v", probe)
		}
		if math.Abs(toUp-1-toFallback) > 1e-9*toUp {
			t.Fatalf("those that were there get %v more, the fallback %v", toUp-1, toFallback)
		}
	})
}

func TestVersionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, _ := drawAssign(t)
		for i := range in.Shares {
			in.Shares[i].Region, in.Shares[i].Overflow = "", 0
			if rapid.Bool().Draw(t, "dead") {
				in.Shares[i].Dead = []fleet.ClusterName{"c2"}
			}
			if rapid.Bool().Draw(t, "fails") {
				in.Shares[i].HeldOut = []fleet.ClusterName{"c1", fleet.ClusterName("x" + rapid.String().Draw(t, "name"))}
			}
			in.Shares[i].Backend.Name.Name += rapid.String().Draw(t, "name")
		}
		version := Version("h1", in.Shares)
		hash, shares, ok := ParseVersion(version)
		if !ok || hash != "h1" || !reflect.DeepEqual(shares, sortedShares(in.Shares)) {
			t.Fatalf("%s\ngave %v %v\nnot %v", version, ok, shares, in.Shares)
		}
	})
}

func FuzzParseVersion(f *testing.F) {
	f.Add("h;ServiceImport/shop/web=us-west:666667,eu-west:333333!us-west")
	f.Add("h;ServiceImport/shop/web=us-west:1000000*us-west")
	f.Add("h;Service/shop/web=!a*a,b")
	f.Add("h;Service/shop/web=")
	f.Add("h;Service/shop/web=a:01000000")      // two spellings of one number
	f.Add("h;Service/shop/web=;Service/a/web=") // not in order
	f.Add("h;ServiceImport/shop/web=!a,b;;")
	f.Fuzz(func(t *testing.T, s string) {
		hash, shares, ok := ParseVersion(s)
		if ok && Version(hash, shares) != s {
			t.Errorf("%q reads back as %q", s, Version(hash, shares))
		}
	})
}

func TestSharesAreLearnedFromMostEdges(t *testing.T) {
	version := func(west uint32) string {
		return Version("h", []BackendShares{{Backend: backendNamed("web"), RegionShares: RegionShares{Shares: []Share{{"eu-west", Whole - west}, {"us-west", west}}}}})
	}
	got := Learned("us", []string{version(1), "rubbish", version(2), version(2), "h;ServiceImport/a/b=c:7"})
	if len(got) != 1 || got[0].Region != "us" || got[0].Of("us-west") != 2 {
		t.Errorf("%v", got)
	}
}
