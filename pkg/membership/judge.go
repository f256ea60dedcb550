package membership

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"
)

// Times by which a node is judged.
const (
	// Interval is how often a node sends a Beat.
	Interval = time.Second
	// Doubt is the silence after which others are asked about a node: two Beats are
	// missing, and half a second for a busy machine.
	Doubt = 2500 * time.Millisecond
	// Silence is how long nothing may come from a node that lives. Three Beats are
	// missing then, and the others have had time to answer.
	Silence = 4 * time.Second
	// Fresh is how long an opinion counts.
	Fresh = 15 * time.Second
	// asked is how many nodes are asked about one, and maxAsked about how many one node
	// is asked.
	asked, maxAsked = 5, 32
)

// State is what is known of a node.
type State string

// States of a node.
const (
	// Unknown: nothing was ever heard of it here, or the viewer has just woken up and has
	// not listened for long enough.
	Unknown State = "Unknown"
	// Alive: the hub hears it.
	Alive State = "Alive"
	// Unheard: the hub does not hear it, but somebody reaches it.
	Unheard State = "Unheard"
	// Silent: the hub does not hear it, and nobody else has a word about it. It may be
	// the hub, or the way to the hub.
	Silent State = "Silent"
	// Lost: the hub does not hear it, another member cannot reach it any more, and nobody
	// reaches it.
	Lost State = "Lost"
	// Left: it said that it stops.
	Left State = "Left"
)

// View is from when a Table is looked at.
type View struct {
	Now time.Time
	// Awake is since when the viewer has run without a pause. What was silent before that
	// may have spoken: only the viewer did not listen.
	Awake time.Time
}

// silence is how long nothing has come from a node while the viewer listened.
func (v View) silence(s Sighting) time.Duration {
	if v.Awake.After(s.At) {
		return v.Now.Sub(v.Awake)
	}
	return v.Now.Sub(s.At)
}

// Verdict is what is known of a node, and on whose word.
type Verdict struct {
	State State
	// Heard is when the hub last heard it; zero for never.
	Heard time.Time
	// Reached and Unreached are the nodes that reached it lately, and those that could
	// not, sorted. If it is not heard, all of them tried after Heard.
	Reached, Unreached []Name
}

// Judge says what is known of a node. Opinions count of nodes that are heard themselves,
// and about a node that is not heard only what they found after it was last heard.
func (t Table) Judge(name Name, v View) Verdict {
	if _, ok := t[name]; !ok {
		return Verdict{State: Unknown}
	}
	return t.judge(name, v, t.opinions(v)[name])
}

// Verdicts says what is known of all nodes.
func (t Table) Verdicts(v View) map[Name]Verdict {
	verdicts, opinions := make(map[Name]Verdict, len(t)), t.opinions(v)
	for name := range t {
		verdicts[name] = t.judge(name, v, opinions[name])
	}
	return verdicts
}

// judge is Judge with the opinions about the node.
func (t Table) judge(name Name, v View, opinions []heardOpinion) Verdict {
	s := t[name]
	verdict := Verdict{Heard: s.At}
	second := false // a member says that it cannot reach the node
	for _, o := range opinions {
		switch {
		case !o.at.After(s.At) && v.silence(s) > Silence:
		case o.reached:
			verdict.Reached = append(verdict.Reached, o.by)
		default:
			verdict.Unreached = append(verdict.Unreached, o.by)
			second = second || !o.by.IsHub()
		}
	}
	verdict.State = stateOf(v.silence(s), s.Beat.Leaving, len(verdict.Reached) > 0, second)
	if verdict.State == Alive && v.Now.Sub(s.At) > Silence {
		verdict.State = Unknown
	}
	return verdict
}

func stateOf(silence time.Duration, leaving, reached, unreached bool) State {
	switch {
	case leaving:
		return Left
	case silence <= Silence:
		return Alive
	case reached:
		return Unheard
	case unreached:
		return Lost
	}
	return Silent
}

// heardOpinion is an opinion by whom, and of when by the viewer's clock.
type heardOpinion struct {
	by      Name
	reached bool
	at      time.Time
}

// opinions are those that count, by the node that they are about and sorted by whose
// they are.
func (t Table) opinions(v View) map[Name][]heardOpinion {
	about := map[Name][]heardOpinion{}
	for _, by := range t.Nodes() {
		s := t[by]
		if s.Beat.Leaving || v.silence(s) > Silence {
			continue
		}
		for _, o := range s.Beat.Opinions {
			if at := s.At.Add(-o.Age); o.Of != by && v.Now.Sub(at) <= Fresh {
				about[o.Of] = append(about[o.Of], heardOpinion{by, o.Reached, at})
			}
		}
	}
	return about
}

// Ask returns whom to ask about which nodes: some of those that are heard, others for
// each node, and always the same while nobody comes or goes.
func (t Table) Ask(v View) map[Name][]Name {
	var doubted, heard []Name
	for _, name := range t.Nodes() {
		s := t[name]
		switch silence := v.silence(s); {
		case s.Beat.Leaving:
		case silence > Doubt && s.Beat.Address != "":
			doubted = append(doubted, name)
		case silence <= Doubt && !name.IsHub():
			heard = append(heard, name)
		}
	}
	ask := map[Name][]Name{}
	for _, name := range doubted {
		for _, other := range first(heard, name, func(other Name) bool { return len(ask[other]) < maxAsked }) {
			ask[other] = append(ask[other], name)
		}
	}
	return ask
}

// first are those nodes that come first in an order that differs for each node that
// they are asked about.
func first(nodes []Name, about Name, may func(Name) bool) []Name {
	type ranked struct {
		name Name
		hash uint64
	}
	best := make([]ranked, 0, asked+1)
	for _, name := range nodes {
		r := ranked{name, hash(name, about)}
		if len(best) == asked && r.hash >= best[asked-1].hash || !may(name) {
			continue
		}
		i, _ := slices.BinarySearchFunc(best, r, func(a, b ranked) int { return cmp.Compare(a.hash, b.hash) })
		best = slices.Insert(best, i, r)
		best = best[:min(len(best), asked)]
	}
	names := make([]Name, len(best))
	for i, r := range best {
		names[i] = r.name
	}
	return names
}

func hash(name, about Name) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(string(about) + "/" + string(name))) // it returns no error
	return h.Sum64()
}
