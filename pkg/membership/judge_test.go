package membership_test

import (
	"bufio"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"crossway.dev/crossway/pkg/membership"
)

// fleetStory is a Table with a fake clock.
type fleetStory struct {
	table membership.Table
	view  membership.View
	seqs  map[membership.Name]uint64
}

// beat hears a Beat of a node with opinions like "!member:b@1s" (not reached, a second ago).
func (s *fleetStory) beat(line string) error {
	fields := strings.Fields(line)
	name := membership.Name(fields[0])
	s.seqs[name]++
	beat := membership.Beat{Node: name, Epoch: 1, Seq: s.seqs[name], Address: "10.0.0.1:18002"}
	for _, field := range fields[1:] {
		if field == "leaving" {
			beat.Leaving = true
			continue
		}
		of, age, _ := strings.Cut(strings.TrimLeft(field, "!"), "@")
		d, err := time.ParseDuration(age)
		if err != nil {
			return err
		}
		beat.Opinions = append(beat.Opinions, membership.Opinion{Of: membership.Name(of), Reached: !strings.HasPrefix(field, "!"), Age: d})
	}
	if err := beat.Check(); err != nil {
		return err
	}
	s.table.Hear(membership.Sighting{Beat: beat, At: s.view.Now})
	return nil
}

func (s *fleetStory) show() string {
	var out strings.Builder
	all := s.table.Verdicts(s.view)
	for _, name := range s.table.Nodes() {
		v := s.table.Judge(name, s.view)
		if !reflect.DeepEqual(v, all[name]) {
			fmt.Fprintf(&out, "%s is judged alone as %+v, and among all as %+v\n", name, v, all[name])
		}
		fmt.Fprintf(&out, "%s %s, heard %s ago", name, v.State, s.view.Now.Sub(v.Heard))
		if len(v.Reached) > 0 {
			fmt.Fprintf(&out, ", reached by %v", v.Reached)
		}
		if len(v.Unreached) > 0 {
			fmt.Fprintf(&out, ", not by %v", v.Unreached)
		}
		out.WriteString("\n")
	}
	ask := s.table.Ask(s.view)
	for _, name := range s.table.Nodes() {
		if len(ask[name]) > 0 {
			fmt.Fprintf(&out, "ask %s about %v\n", name, ask[name])
		}
	}
	return out.String()
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &fleetStory{table: membership.Table{}, view: membership.View{Now: start}, seqs: map[membership.Name]uint64{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			lines := bufio.NewScanner(strings.NewReader(d.Input))
			for lines.Scan() {
				verb, rest, _ := strings.Cut(lines.Text(), " ")
				var err error
				switch verb {
				case "beat":
					err = s.beat(rest)
				case "tick":
					var step time.Duration
					step, err = time.ParseDuration(rest)
					s.view.Now = s.view.Now.Add(step)
				case "awake":
					s.view.Awake = s.view.Now
				default:
					err = fmt.Errorf("unknown command %q", verb)
				}
				if err != nil {
					d.Fatalf(t, "%s: %v", lines.Text(), err)
				}
			}
			return s.show()
		})
	})
}

// Whatever one member says of others: it makes nobody lost whom the hub hears, and
// nobody who is silent lost if another member reaches it.
func TestALiarSpeaksOnlyOfItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lies []membership.Opinion
		for _, name := range names {
			if name != "member:c" && rapid.Bool().Draw(t, string(name)) {
				lies = append(lies, membership.Opinion{Of: name, Reached: rapid.Bool().Draw(t, "reached"), Age: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "age"))})
			}
		}
		now := start.Add(10 * time.Second)
		table := tableOf([]membership.Sighting{
			{Beat: membership.Beat{Node: "hub:h1", Seq: 1}, At: now},
			{Beat: membership.Beat{Node: "member:a", Seq: 1}, At: start}, // silent for 10 s; b reaches it
			{Beat: membership.Beat{Node: "member:b", Seq: 1, Opinions: []membership.Opinion{{Of: "member:a", Reached: true, Age: time.Second}}}, At: now},
			{Beat: membership.Beat{Node: "member:c", Seq: 1, Opinions: lies}, At: now},
		})
		view := membership.View{Now: now}
		for name, want := range map[membership.Name]membership.State{"hub:h1": membership.Alive, "member:b": membership.Alive, "member:c": membership.Alive, "member:a": membership.Unheard} {
			if got := table.Judge(name, view).State; got != want {
				t.Fatalf("%s is %s, want %s, because of %v", name, got, want, lies)
			}
		}
	})
}

func TestAskFewAndAlwaysTheSame(t *testing.T) {
	table := membership.Table{}
	now := start.Add(10 * time.Second)
	for i := range 200 {
		at := now
		if i < 100 {
			at = start // silent
		}
		table.Hear(membership.Sighting{Beat: membership.Beat{Node: membership.Name(fmt.Sprintf("member:m%d", i)), Address: "10.0.0.1:1"}, At: at})
	}
	times, most := map[membership.Name]int{}, 0
	for other, about := range table.Ask(membership.View{Now: now}) {
		if table[other].At.Equal(start) {
			t.Errorf("%s is silent and asked", other)
		}
		most = max(most, len(about))
		for _, name := range about {
			times[name]++
		}
	}
	if len(times) != 100 || most > 32 {
		t.Errorf("%d of 100 nodes are asked about, one node about %d", len(times), most)
	}
	for name, n := range times {
		if n != 5 {
			t.Errorf("%d nodes are asked about %s, want 5", n, name)
		}
	}
}
