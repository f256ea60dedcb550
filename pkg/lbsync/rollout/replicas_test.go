package rollout

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"crossway.dev/crossway/pkg/fleet"
)

// twins are two replicas of a hub, each with edges of its own, which say to each other what
// these answered.
//
//	a COMMAND..., b COMMAND...  a command of story, for one replica
//	both COMMAND...             for both
//	settle                      both pass and their edges answer, until nothing changes; then what edges have
//	say                         what each replica would write
//	kill NAME                   a replica ends without a word; the other one hears nothing of it
//	forget NAME                 the other one knows nothing of its edges any more
//	start NAME                  it starts again, with the records of the other one
//	move POOL/NODE NAME         an edge connects to that replica, with what it has
type twins struct {
	names []string
	hubs  map[string]*story
	dead  map[string]bool
	known map[string]Answers // what each said last
	time  time.Time
}

func newTwins(t *testing.T) *twins {
	w := &twins{names: []string{"a", "b"}, hubs: map[string]*story{}, dead: map[string]bool{}, known: map[string]Answers{}, time: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, name := range w.names {
		w.hubs[name] = newStory(t)
	}
	return w
}

func (w *twins) other(name string) string {
	if name == "a" {
		return "b"
	}
	return "a"
}

// exchange gives each replica what the other one says, and reports whether that is new.
func (w *twins) exchange() (changed bool) {
	for _, name := range w.names {
		if !w.dead[name] {
			says := w.hubs[name].rollout.Answers(w.hubs[name].progress())
			changed = changed || !reflect.DeepEqual(says, w.known[name])
			w.known[name] = says
		}
	}
	for _, name := range w.names {
		other := w.other(name)
		w.hubs[name].rollout.SetReplicas([]Replica{{Answers: w.known[other], Silent: w.dead[other]}})
	}
	return changed
}

func (w *twins) settle() (out string) {
	for range 60 {
		said, asked := "", false
		for _, name := range w.names {
			if w.dead[name] {
				continue
			}
			for line := range strings.Lines(w.hubs[name].pass()) {
				said += name + ": " + line
			}
			asked = w.hubs[name].answer(false) || w.hubs[name].rollout.HasWork() || asked
			asked = w.exchange() || asked
		}
		out += said
		if said == "" && !asked {
			for _, name := range w.names {
				out += w.hubs[name].has()
			}
			return out
		}
	}
	return out + "does not end\n"
}

func (w *twins) say() string {
	var out strings.Builder
	for _, name := range w.names {
		if w.dead[name] {
			continue
		}
		s := w.hubs[name]
		own := s.rollout.Answers(s.progress())
		g := s.rollout.Progress(own, false)[sharedGateway.Name]
		fmt.Fprintf(&out, "%s: %d of %d edges", name, g.Acked, g.Connected)
		for _, pool := range s.pools {
			edges := s.rollout.PoolEdges(pool.Pool, own)
			fmt.Fprintf(&out, ", %s %d", pool.Pool, edges.Connected)
			for _, e := range edges.Refusing {
				fmt.Fprintf(&out, " (%s refuses%s)", e.Node, names(e.Routes))
			}
		}
		out.WriteByte('\n')
		for _, f := range s.rollout.Records() {
			fmt.Fprintf(&out, "  record: %s refuses %s %s%s, some %t\n", f.Pool, f.Ref.Name.Name, f.Version, describeInstead(f.Instead), f.Outvoted)
		}
	}
	return out.String()
}

func (w *twins) run(t *testing.T, d *datadriven.TestData) string {
	out := w.command(t, d)
	line, rest, _ := strings.Cut(d.Input, "\n")
	if strings.TrimSpace(line) == "" {
		return out
	}
	cmd, args, err := datadriven.ParseLine(line)
	if err != nil {
		d.Fatalf(t, "%s: %v", line, err)
	}
	return out + w.run(t, &datadriven.TestData{Pos: d.Pos, Cmd: cmd, CmdArgs: args, Input: rest})
}

func (w *twins) command(t *testing.T, d *datadriven.TestData) string {
	w.time = w.time.Add(time.Second)
	switch d.Cmd {
	case "a", "b", "both":
		inner := &datadriven.TestData{Pos: d.Pos, Cmd: d.CmdArgs[0].Key, CmdArgs: d.CmdArgs[1:]}
		out := ""
		for _, name := range w.names {
			if d.Cmd == "both" || d.Cmd == name {
				w.hubs[name].t = t
				out += w.hubs[name].command(inner)
			}
		}
		for _, s := range w.hubs {
			for _, e := range s.edges {
				if e.since.IsZero() {
					e.since = w.time
				}
			}
		}
		return out
	case "settle":
		return w.settle()
	case "say":
		w.exchange()
		return w.say()
	case "kill":
		w.dead[d.CmdArgs[0].Key] = true
	case "forget":
		delete(w.known, d.CmdArgs[0].Key)
	case "start":
		name := d.CmdArgs[0].Key
		delete(w.dead, name)
		w.hubs[name].restart(w.hubs[w.other(name)].rollout.Records())
	case "move":
		w.move(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return ""
}

// move has an edge connect to another replica, with what it has.
func (w *twins) move(edge, to string) {
	from, next := w.hubs[w.other(to)], w.hubs[to]
	for i, e := range from.edges {
		if e.pool+"/"+e.node == edge {
			from.edges = append(from.edges[:i:i], from.edges[i+1:]...)
			e.since = w.time
			next.reconnect(e)
			next.edges = append(next.edges, e)
			return
		}
	}
}

// An edge counts once, whatever its replicas say of it.
func TestCountedEdges(t *testing.T) {
	at := func(seconds int) time.Time { return time.Date(2027, 1, 1, 0, 0, seconds, 0, time.UTC) }
	edge := func(node, source string, since int) EdgeAnswers {
		return EdgeAnswers{Edge: Edge{Node: node, Zone: "z", Source: source, Since: at(since)}}
	}
	lacking := func(e EdgeAnswers, names ...string) EdgeAnswers {
		for _, name := range names {
			e.Lacks = append(e.Lacks, fleet.ObjectName{Name: name})
		}
		return e
	}
	fresh := func(e EdgeAnswers) EdgeAnswers { e.New = true; return e }
	left := func(e EdgeAnswers) EdgeAnswers { e.Left = at(50); return e }
	replica := func(silent bool, edges ...EdgeAnswers) Replica {
		return Replica{Silent: silent, Answers: Answers{"us": {Edges: edges}}}
	}
	for what, test := range map[string]struct {
		own      []EdgeAnswers
		replicas []Replica
		want     string
	}{
		"one on each": {[]EdgeAnswers{edge("x", "1", 1)}, []Replica{replica(false, edge("y", "2", 2))}, "x y"},
		"it moved here, and the other one has not noticed": {[]EdgeAnswers{lacking(edge("x", "1", 2), "new")}, []Replica{replica(false, edge("x", "1", 1))}, "x(new)"},
		"it moved there":                       {[]EdgeAnswers{edge("x", "1", 1)}, []Replica{replica(false, lacking(edge("x", "1", 2), "new"))}, "x(new)"},
		"two behind different addresses":       {[]EdgeAnswers{edge("x", "1", 1)}, []Replica{replica(false, edge("x", "2", 2))}, "x x"},
		"of a silent replica":                  {nil, []Replica{replica(true, edge("x", "1", 1))}, "x"},
		"of a silent replica, and here by now": {[]EdgeAnswers{lacking(edge("x", "2", 9), "here")}, []Replica{replica(true, edge("x", "1", 1))}, "x(here)"},
		"here, and has answered nothing yet":   {[]EdgeAnswers{fresh(edge("x", "2", 9))}, []Replica{replica(true, lacking(edge("x", "1", 1), "before"))}, "x(before)"},
		"on its way from here to there":        {[]EdgeAnswers{left(edge("x", "1", 1))}, []Replica{replica(false)}, "x"},
		"it arrived there":                     {[]EdgeAnswers{left(edge("x", "1", 1))}, []Replica{replica(false, lacking(edge("x", "1", 2), "there"))}, "x(there)"},
		"two silent ones knew it":              {nil, []Replica{replica(true, lacking(edge("x", "1", 1), "old")), replica(true, edge("x", "1", 2))}, "x"},
		"its stream ended, and it has another": {[]EdgeAnswers{edge("x", "1", 5), left(edge("x", "1", 1))}, nil, "x"},
	} {
		var got []string
		for _, c := range countedEdges("us", PoolAnswers{Edges: test.own}, test.replicas) {
			text := c.Node
			for _, name := range c.Lacks {
				text += "(" + name.Name + ")"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, want %s", what, got, test.want)
		}
	}
}
