package reconciler

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// origins are the Gateways and routes that a resource is made of, with their generations.
type origins map[fleet.ObjectRef]int64

// resourceID is one Envoy resource, whatever its version.
type resourceID struct{ typeURL, name string }

// making is one version of a resource and what it was made of.
type making struct {
	version string
	from    origins
	acked   bool // by any edge
}

// remembered bounds the versions of one resource that wait for an answer.
const remembered = 16

// ledger remembers what each resource was made of, from the last version that
// an edge took to the newest, and so knows what is new in one that is refused.
// It is a value of the loop: no lock, no clock.
type ledger struct {
	made map[resourceID][]making // oldest first
	held map[resourceID]string   // versions that edges brought with them
	// refused are versions and the words about them: an edge is not asked twice
	// about one.
	refused map[resourceID]map[string]string
}

func newLedger() ledger {
	return ledger{made: map[resourceID][]making{}, held: map[resourceID]string{}, refused: map[resourceID]map[string]string{}}
}

// publish notes a new version of a resource; from is asked only then.
func (l ledger) publish(id resourceID, version string, from func() origins) {
	versions := l.made[id]
	if n := len(versions); n > 0 && versions[n-1].version == version {
		return
	}
	// A refused version may come back (its route was repaired and broken again).
	versions = slices.DeleteFunc(versions, func(m making) bool { return m.version == version })
	versions = append(versions, making{version: version, from: from(), acked: l.held[id] == version})
	l.made[id] = prune(versions)
}

// prune keeps the last two versions that were ACKed, and all newer ones: one
// edge may refuse what another has just taken.
func prune(versions []making) []making {
	acked := 0
	for i := len(versions) - 1; i >= 0; i-- {
		if !versions[i].acked {
			continue
		}
		if acked++; acked == 2 {
			return slices.Clone(versions[i:])
		}
	}
	if len(versions) > remembered {
		return slices.Clone(versions[len(versions)-remembered:])
	}
	return versions
}

// withdraw forgets resources that are no longer published.
func (l ledger) withdraw(published map[resourceID]bool) {
	maps.DeleteFunc(l.made, func(id resourceID, _ []making) bool { return !published[id] })
	maps.DeleteFunc(l.held, func(id resourceID, _ string) bool { return !published[id] })
	maps.DeleteFunc(l.refused, func(id resourceID, _ map[string]string) bool { return !published[id] })
}

// outlive sets objects that are gone apart from others that have or will have
// their names; their own generations stay apart from each other.
func (l ledger) outlive(gone sets.Set[fleet.ObjectRef]) {
	if len(gone) == 0 {
		return
	}
	for _, versions := range l.made {
		for _, m := range versions {
			for o := range m.from {
				if gone.Has(o) {
					m.from[o] -= lifetime
				}
			}
		}
	}
}

// lifetime is more than the generations of any object.
const lifetime = 1 << 40

// ack notes that an edge took a version, or came with it.
func (l ledger) ack(id resourceID, version string) {
	l.held[id] = version
	for i := range l.made[id] {
		if l.made[id][i].version == version {
			l.made[id][i].acked = true
		}
	}
}

// current is the version of a resource that was published last.
func (l ledger) current(id resourceID) making {
	if versions := l.made[id]; len(versions) > 0 {
		return versions[len(versions)-1]
	}
	return making{}
}

// nack notes that an edge refused a version.
func (l ledger) nack(n refusal) {
	if l.refused[n.id] == nil || len(l.refused[n.id]) >= remembered {
		l.refused[n.id] = map[string]string{}
	}
	l.refused[n.id][n.version] = n.message
}

// repeated are the resources that are published as they were refused before:
// nobody will say so again.
func (l ledger) repeated() []refusal {
	var out []refusal
	for id, versions := range l.refused {
		version := l.current(id).version
		if message, refused := versions[version]; refused {
			out = append(out, refusal{id, version, message})
		}
	}
	return out
}

// refusal is a NACK.
type refusal struct {
	id      resourceID
	version string
	message string // Envoy's words
}

// suspects are the routes that a refused version has and the last accepted one
// before it had not, or not at that generation; where the edge's own words
// name a value of some of them, only those. No suspect: nobody's change did it.
// certain: each of them is guilty.
//
// known are objects that edges are believed to have at this generation where
// no accepted version is known: those that were accepted before this process
// started. texts gives the values of a route that an edge may repeat.
func (l ledger) suspects(r refusal, known origins, texts func(fleet.RouteRef) []string) (found []fleet.RouteRef, certain bool) {
	versions := l.made[r.id]
	at := slices.IndexFunc(versions, func(m making) bool { return m.version == r.version })
	if at < 0 {
		return nil, false
	}
	before := known
	for _, m := range versions[:at] {
		if m.acked {
			before = m.from
		}
	}
	var all []fleet.RouteRef
	for o, generation := range versions[at].from {
		if o.Kind == condition.Gateway {
			continue
		}
		all = append(all, o)
		if was, had := before[o]; !had || was != generation {
			found = append(found, o)
		}
	}
	unnamed := func(o fleet.RouteRef) bool {
		return !slices.ContainsFunc(texts(o), func(text string) bool { return strings.Contains(r.message, text) })
	}
	said := slices.DeleteFunc(slices.Clone(found), unnamed)
	if len(found) == 0 {
		said = slices.DeleteFunc(all, unnamed)
	}
	certain = len(said) > 0
	if certain {
		found = said
	}
	slices.SortFunc(found, fleet.RouteRef.Compare)
	return found, certain || len(found) == 1
}

// shortestHint is the shortest value that is taken for a name of a route in an
// edge's words: shorter ones are in any sentence.
const shortestHint = 5

// hints are the values of a route's rules that Envoy repeats when it refuses
// them: regular expressions above all.
func hints(m *model.Model, route fleet.RouteRef) []string {
	var texts []string
	add := func(text string) {
		if len(text) >= shortestHint {
			texts = append(texts, text)
		}
	}
	for rule := range rules(m.Listeners) {
		if rule.Origin.Route != route {
			continue
		}
		if rule.Match.Path.Kind == model.PathRegex {
			add(rule.Match.Path.Value)
		}
		for _, match := range slices.Concat(rule.Match.Headers, rule.Match.Query) {
			if match.Regex {
				add(match.Value)
			}
		}
		for _, header := range slices.Concat(rule.Request.Set, rule.Request.Add, rule.Response.Set, rule.Response.Add) {
			add(header.Value)
		}
	}
	return texts
}
