package chaos

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

var shape = Shape{Members: []string{"a", "b", "c"}, Services: []string{"s0", "s1"}, Replicas: 2, Over: 10 * time.Minute, LongestFault: 8 * time.Second}

func TestPlanIsTheSeeds(t *testing.T) {
	plan := Plan(7, shape)
	if !reflect.DeepEqual(plan, Plan(7, shape)) {
		t.Error("one seed gives two plans")
	}
	if reflect.DeepEqual(plan, Plan(8, shape)) {
		t.Error("two seeds give one plan")
	}
	seen := map[Act]int{}
	ends := map[string]time.Duration{}
	for _, s := range plan {
		seen[s.Act]++
		if s.For > 0 && s.At < ends[s.target()] {
			t.Errorf("%s begins before the fault before it has ended", s)
		}
		ends[s.target()] = s.At + s.For
		if s.At >= shape.Over || s.For > shape.LongestFault || s.Replica >= shape.Replicas {
			t.Errorf("%s is not of the shape", s)
		}
	}
	for _, w := range weights {
		if seen[w.act] == 0 {
			t.Errorf("in %d steps there is no %s", len(plan), w.act)
		}
	}
}

func TestParts(t *testing.T) {
	x := Part{"s", "a"}
	see := func(p *Parts, address string) []string {
		return p.Compare("b", p.Expected("b"), map[Part]string{x: address})
	}
	for _, story := range []struct {
		name string
		act  func(p *Parts) []string
		want string
	}{
		{"seen and kept", func(p *Parts) []string { see(p, "1"); return see(p, "1") }, ""},
		{"lost", func(p *Parts) []string { see(p, "1"); return see(p, "") }, "b has lost s of a"},
		{"not seen yet", func(p *Parts) []string { return see(p, "") }, ""},
		{"changed, and the old one is shown still", func(p *Parts) []string { see(p, "1"); p.Export(x, "2"); return see(p, "1") }, ""},
		{"the old one comes back", func(p *Parts) []string { see(p, "1"); p.Export(x, "2"); see(p, "2"); return see(p, "1") }, "b has lost s of a"},
		{"withdrawn, and shown still", func(p *Parts) []string { see(p, "1"); p.Withdraw(x); return see(p, "1") }, ""},
		{"changed while it is asked", func(p *Parts) []string {
			see(p, "1")
			expected := p.Expected("b")
			p.Withdraw(x)
			return p.Compare("b", expected, nil)
		}, ""},
		{"an address that it never had", func(p *Parts) []string { return see(p, "1 3") }, "b shows 3 of s of a, which never had it"},
	} {
		p := NewParts()
		p.Export(x, "1")
		got := strings.Join(story.act(p), "\n")
		if (got == "") != (story.want == "") || !strings.Contains(got, story.want) {
			t.Errorf("%s: got %q, want %q", story.name, got, story.want)
		}
	}
}

var epoch = time.Unix(1000, 0)

func second(n float64) time.Time { return epoch.Add(time.Duration(n * float64(time.Second))) }

func get(at float64, status int, cluster string) Answer {
	return Answer{At: second(at), End: second(at + 0.1), Region: "us", Status: status, Cluster: cluster}
}

func TestService(t *testing.T) {
	long := Answer{At: second(10), End: second(25), Region: "us"} // nothing in 15 s
	for _, story := range []struct {
		name    string
		tell    func(s *Service)
		answers []Answer
		want    string
	}{
		{"served", func(*Service) {}, []Answer{get(1, 200, "a"), get(10, 200, "a")}, ""},
		{"lost though exported", func(*Service) {}, []Answer{get(1, 200, "a"), get(10, 503, "")}, "although a exports"},
		{"not served yet", func(*Service) {}, []Answer{get(1, 503, ""), get(2, 404, "")}, ""},
		{"served too shortly before", func(*Service) {}, []Answer{get(9, 200, "a"), get(10, 503, "")}, ""},
		{"withdrawn", func(s *Service) { s.Withdraws("a", second(9)) }, []Answer{get(1, 200, "a"), get(10, 503, "")}, ""},
		{"withdrawn, and lost before", func(s *Service) { s.Withdraws("a", second(12)) }, []Answer{get(1, 200, "a"), get(10, 503, "")}, "although a exports"},
		{"withdrawn and exported again, not served since", func(s *Service) { s.Withdraws("a", second(9)); s.Exports("a", second(10)) },
			[]Answer{get(1, 200, "a"), get(20, 503, "")}, ""},
		{"cut off", func(s *Service) { s.Fault(Step{Act: CutMember, Member: "a"}, second(9), second(15)) }, []Answer{get(1, 200, "a"), get(10, 503, "")}, ""},
		{"cut off half a minute before", func(s *Service) { s.Fault(Step{Act: CutMember, Member: "a"}, second(9), second(15)) }, []Answer{get(1, 200, "a"), get(44, 503, "")}, ""},
		{"cut off long before", func(s *Service) { s.Fault(Step{Act: CutMember, Member: "a"}, second(9), second(15)) }, []Answer{get(1, 200, "a"), get(46, 503, "")}, "although a exports"},
		{"cut off meanwhile", func(s *Service) { s.Fault(Step{Act: CutMember, Member: "a"}, second(20), second(22)) }, []Answer{get(1, 200, "a"), long}, ""},
		{"another is cut off", func(s *Service) { s.Fault(Step{Act: CutMember, Member: "b"}, second(9), second(15)) }, []Answer{get(1, 200, "a"), get(10, 503, "")}, "although a exports"},
		{"another is cut off, and no hub is there", func(s *Service) {
			s.Fault(Step{Act: CutMember, Member: "b"}, second(9), second(15))
			s.Fault(Step{Act: KillHubs}, second(8), second(10))
		}, []Answer{get(1, 200, "a"), get(10, 503, "")}, ""},
		{"no hub is there", func(s *Service) { s.Fault(Step{Act: KillHubs}, second(9), second(15)) }, []Answer{get(1, 200, "a"), get(10, 503, "")}, "although a exports"},
		{"a stranger answers", func(*Service) {}, []Answer{get(1, 200, "b")}, "b answered a client in us, and never exported"},
		{"withdrawn a minute ago in trouble", func(s *Service) {
			s.Withdraws("a", second(10))
			s.Fault(Step{Act: FreezeHub}, second(40), second(50))
		}, []Answer{get(1, 200, "a"), get(100, 200, "a")}, ""},
		{"withdrawn long ago", func(s *Service) { s.Withdraws("a", second(10)) }, []Answer{get(1, 200, "a"), get(71, 200, "a")}, "a answered a client in us, withdrew"},
	} {
		s := NewService()
		s.Exports("a", epoch)
		story.tell(s)
		got := strings.Join(s.Judge(story.answers), "\n")
		if (got == "") != (story.want == "") || !strings.Contains(got, story.want) {
			t.Errorf("%s: got %q, want %q", story.name, got, story.want)
		}
	}
}
