package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

func TestPercentilesAreNearestRank(t *testing.T) {
	var samples []time.Duration
	for i := 200; i > 0; i-- { // 1 to 200 ms, unsorted
		samples = append(samples, time.Duration(i)*time.Millisecond)
	}
	if got, want := Millis(samples), (Figure{P50: 100, P99: 198, Max: 200, N: 200}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := Millis(samples[:1]), (Figure{P50: 200, P99: 200, Max: 200, N: 1}); got != want {
		t.Errorf("one sample: got %v, want %v", got, want)
	}
	if got := Millis(nil); got != (Figure{}) {
		t.Errorf("no sample: got %v", got)
	}
	if samples[0] != 200*time.Millisecond {
		t.Error("the input was sorted in place")
	}
}

// line is one of the hub's log as the lab keeps it.
func line(what, node, kind string, at float64, resources ...string) string {
	names, _ := json.Marshal(resources)
	return fmt.Sprintf(`2026-01-02T03:04:05.000000001Z {"time":%q,"level":"DEBUG","msg":%q,"logger":"xds","node":%q,"type":%q,"resources":%s}`,
		time.UnixMicro(int64(at*1e6)).UTC().Format(time.RFC3339Nano), what, node, kind, names)
}

func TestParseLine(t *testing.T) {
	e, ok := ParseLine([]byte(line("acked", "edge-1", "assignment", 1767322800.25, "bench/s1/abc f00;x=us:1", "bench/s2/abc f01")))
	if !ok || e.What != "acked" || e.Node != "edge-1" || e.Type != "assignment" || e.At.UnixMilli() != 1767322800250 {
		t.Errorf("got %+v, %v", e, ok)
	}
	if e.Versions["bench/s1/abc"] != "f00;x=us:1" || e.Versions["bench/s2/abc"] != "f01" {
		t.Errorf("versions: %v", e.Versions)
	}
	for _, other := range []string{
		"", "2026-01-02T03:04:05Z", `2026-01-02T03:04:05Z {"time":"2026-01-02T03:00:00.5Z","level":"INFO","msg":"started"}`,
		`2026-01-02T03:04:05Z {"time":"2026-01-02T03:00:00.5Z","level":"INFO","msg":"other","what":"acked"}`, // only the message counts
		`2026-01-02T03:04:05Z {"time":"2026-01-02T03:00:00.5Z","msg":"acked"`,                                // torn
		line("refused", "edge-1", "route", 1767322800),
	} {
		if e, ok := ParseLine([]byte(other)); ok {
			t.Errorf("%q gave %+v", other, e)
		}
	}
}

// A line may arrive in parts.
func TestLogTakesWholeLines(t *testing.T) {
	l := &Log{grown: make(chan struct{})}
	text := line("pushed", "a", "route", 5, "x 1") + "\n" + line("acked", "a", "route", 6, "x 1") + "\n"
	half := len(text) / 3 * 2
	rest := l.take([]byte(text[:half]))
	if l.Mark() != 1 {
		t.Fatalf("%d events of the first part", l.Mark())
	}
	if rest = l.take(append(rest, text[half:]...)); len(rest) > 0 || l.Mark() != 2 {
		t.Errorf("left %q, %d events", rest, l.Mark())
	}
	if since := l.Since(1); len(since) != 1 || since[0].What != "acked" {
		t.Errorf("since the first: %v", since)
	}
}

func TestPassage(t *testing.T) {
	at := func(ms int) float64 { return 1767322800 + float64(ms)/1000 }
	parse := func(lines ...string) []Event {
		var out []Event
		for _, l := range lines {
			e, ok := ParseLine([]byte(l))
			if !ok {
				t.Fatalf("%s", l)
			}
			out = append(out, e)
		}
		return out
	}
	events := parse(
		line("pushed", "b", "route", at(-2), "r 1"), // before the change
		line("acked", "b", "route", at(-1), "r 1"),
		line("pushed", "a", "assignment", at(2), "r 2"),
		line("pushed", "a", "route", at(4), "other 2"),
		line("acked", "b", "route", at(9), "r 2"), // written before the line of its push
		line("pushed", "b", "route", at(7), "r 2"),
		line("pushed", "a", "route", at(5), "r 2"),
		line("acked", "a", "route", at(8), "other 2"),
		line("pushed", "a", "route", at(20), "r 3"), // the next change
		line("acked", "a", "route", at(30), "r 3"),
		line("acked", "a", "route", at(12), "r 2"),
	)
	p := Passage{Edges: 2, Type: "route", Names: func(name string) bool { return name == "r" }, Began: time.UnixMilli(1767322800000)}
	for i, e := range events {
		if done := p.See(e); done != (i == len(events)-1) {
			t.Fatalf("after event %d: done %v, %s", i, done, &p)
		}
	}
	near := func(what string, got, want time.Duration) {
		if d := got - want; d < -time.Microsecond*10 || d > 10*time.Microsecond {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	near("last push", p.ToPush(), 7*time.Millisecond)
	near("last ACK", p.ToAck(), 12*time.Millisecond)
	near("longest push to ACK", p.PushToAck(), 7*time.Millisecond)
	near("mean", MeanPushToAck(events, "route"), (1+7+2+4+10)*time.Millisecond/5)
	if n := others(events, p.Began, &p); n != 2 { // the assignment and the other route
		t.Errorf("%d other resources, want 2", n)
	}
}

func TestParseStat(t *testing.T) {
	text := "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 9 0 12345 1 2"
	if got, err := parseStat(text); err != nil || got != (stat{cpu: 300, started: 12345}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseStat("42 (x) S 1"); err == nil {
		t.Error("a torn line is no error")
	}
}

// Every address of every service is its own and lies in its member's range,
// in both shapes, also those of the burst.
func TestAddresses(t *testing.T) {
	seen := map[string]bool{}
	for number := range 1000 + burstSize {
		for turn := range 2 {
			for k, e := range (service{number: number}).endpoints("10.1", "z", turn) {
				if turn == 1 && k < perCluster-1 {
					continue // as in the first shape
				}
				a, err := netip.ParseAddr(e.Addresses[0])
				if err != nil || !netip.MustParsePrefix("10.1.0.0/16").Contains(a) || netip.MustParsePrefix("10.1.0.0/21").Contains(a) {
					t.Fatalf("service %d: address %q (%v)", number, e.Addresses[0], err)
				}
				if seen[a.String()] {
					t.Fatalf("service %d: address %s again", number, a)
				}
				seen[a.String()] = true
			}
		}
	}
}

// Members of part scale announce addresses of their own ranges alone, each once, and export what they drew before. Nearly
// each service is exported by someone.
func TestScaleMembers(t *testing.T) {
	const members = 100
	seen, exported := map[netip.Addr]string{}, map[service]int{}
	for n := range members {
		m := &mockMember{number: n, of: members}
		m.draw()
		first := m.exports
		if m.draw(); !slices.Equal(first, m.exports) || len(m.exports) != exportsPerMember {
			t.Fatalf("%s drew %d exports, or others the second time", m.name(), len(m.exports))
		}
		cidr := netip.PrefixFrom(m.address(0), 20)
		use := func(a netip.Addr) {
			if seen[a] != "" || !cidr.Contains(a) || cidr.Masked() != cidr {
				t.Fatalf("%s announces %s of %s, which %q has", m.name(), a, cidr, seen[a])
			}
			seen[a] = m.name()
		}
		for k, s := range m.exports {
			exported[s]++
			for _, e := range m.slice(k, m.firstLast(k)).Endpoints {
				use(netip.MustParseAddr(e.Addresses[0]))
			}
		}
		for turn := range 1000 {
			use(m.anotherLast(turn))
		}
	}
	if len(exported) < 990 || len(exported) > members*namesPerMember {
		t.Errorf("%d services are exported of %d", len(exported), members*namesPerMember)
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := Table(&out, []int{10, 100}, map[string]Figures{"10": {"slice_to_ack_ms": {P50: 1.25, P99: 2, Max: 3, N: 200}}, "100": {"warm_ms": Value(900)}})
	testkit.Must(t, err)
	for _, want := range []string{"1.2 / 2.0 / 3.0", "900"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if rows := strings.Count(out.String(), "\n"); rows != len(Rows)+1 {
		t.Errorf("%d rows, want %d", rows, len(Rows)+1)
	}
}
