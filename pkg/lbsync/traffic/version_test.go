package traffic

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/fleet"
)

func importNamed(name string) fleet.Backend {
	return fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: "shop", Name: name}}
}

func TestVersionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var shares []BackendShares
		for i := range rapid.IntRange(0, 3).Draw(t, "backends") {
			s := BackendShares{Backend: importNamed(fmt.Sprint("web", i) + rapid.String().Draw(t, "backend"))}
			s.Shares = Split(drawFleet(t))[0].Shares
			if rapid.Bool().Draw(t, "some are dead") {
				s.Dead = []fleet.ClusterName{"m2"}
			}
			if rapid.Bool().Draw(t, "some are held out") {
				s.HeldOut = []fleet.ClusterName{"m1", fleet.ClusterName("x" + rapid.String().Draw(t, "cluster"))}
			}
			shares = append(shares, s)
		}
		version := Version("h1", shares)
		hash, parsed, ok := ParseVersion(version)
		if !ok || hash != "h1" || !reflect.DeepEqual(parsed, sortedShares(shares)) {
			t.Fatalf("%s\ngave %v %v\nnot %v", version, ok, parsed, shares)
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
		return Version("h", []BackendShares{{Backend: importNamed("web"), RegionShares: RegionShares{Shares: []Share{{"eu-west", TotalParts - west}, {"us-west", west}}}}})
	}
	got := LearnShares("us", []string{version(1), "rubbish", version(2), version(2), "h;ServiceImport/a/b=c:7"})
	if len(got) != 1 || got[0].Region != "us" || got[0].PartsOf("us-west") != 2 {
		t.Errorf("%v", got)
	}
}
