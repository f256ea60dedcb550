package membership

import (
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
	s, ok := t[name]
	if !ok {
		return Verdict{State: Unknown}
	}
	verdict := Verdict{Heard: s.At}
	second := false // a member says that it cannot reach the node
	for _, other := range t.Nodes() {
		o, ok := t.opinion(other, name, v)
		switch {
		case !ok:
		case o.Reached:
			verdict.Reached = append(verdict.Reached, other)
		default:
			verdict.Unreached = append(verdict.Unreached, other)
			second = second || !other.IsHub()
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

// opinion is what another node says of one, if it counts.
func (t Table) opinion(of, about Name, v View) (Opinion, bool) {
	by, s := t[of], t[about]
	if of == about || by.Beat.Leaving || v.silence(by) > Silence {
		return Opinion{}, false
	}
	i := slices.IndexFunc(by.Beat.Opinions, func(o Opinion) bool { return o.Of == about })
	if i < 0 {
		return Opinion{}, false
	}
	found := by.Beat.Opinions[i]
	at := by.At.Add(-found.Age)
	return found, (at.After(s.At) || v.silence(s) <= Silence) && v.Now.Sub(at) <= Fresh
}

// Ask returns whom to ask about which nodes: some of those that are heard, others for
// each node, and always the same while nobody comes or goes.
func (t Table) Ask(v View) map[Name][]Name {
	var doubted, heard []Name
	for _, name := range t.Nodes() {
		s := t[name]
		switch silence := v.silence(s); {
		case s.Beat.Leaving:
		case silence <= Doubt:
			heard = append(heard, name)
		case s.Beat.Address != "":
			doubted = append(doubted, name)
		}
	}
	ask := map[Name][]Name{}
	for _, name := range doubted {
		from := slices.Clone(heard)
		slices.SortFunc(from, func(a, b Name) int { return compareHash(a, b, name) })
		count := 0
		for _, other := range from {
			if count < asked && !other.IsHub() && len(ask[other]) < maxAsked {
				ask[other] = append(ask[other], name)
				count++
			}
		}
	}
	return ask
}

// compareHash orders nodes differently for each node that they are asked about.
func compareHash(a, b, about Name) int {
	x, y := hash(a, about), hash(b, about)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func hash(name, about Name) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(string(about) + "/" + string(name))) // it returns no error
	return h.Sum64()
}
