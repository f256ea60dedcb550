package rollout

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// ResourceID names an Envoy resource, whatever its version.
type ResourceID struct{ TypeURL, Name string }

func idOf(r *envoy.Resource) ResourceID { return ResourceID{r.TypeURL, r.Name} }

// Type is the last part of the type URL, like "Listener".
func (id ResourceID) Type() string { return id.TypeURL[strings.LastIndexByte(id.TypeURL, '.')+1:] }

// String gives "Type name".
func (id ResourceID) String() string { return id.Type() + " " + id.Name }

func (id ResourceID) compare(other ResourceID) int {
	return cmp.Or(cmp.Compare(id.TypeURL, other.TypeURL), cmp.Compare(id.Name, other.Name))
}

// Nack is an edge's rejection of one version of a resource.
type Nack struct {
	Resource ResourceID
	Version  string
	Message  string // Envoy's error
}

// routeVersions are routes and which version of each.
type routeVersions map[fleet.RouteRef]ObjectVersion

// publishedVersion is one version of a resource.
type publishedVersion struct {
	version string
	routes  routeVersions // that it was made of
	acked   bool          // by any edge
}

// maxVersions bounds the versions of one resource that wait for an answer.
const maxVersions = 16

// history keeps the versions of each resource, from the last ones that an edge
// has ACKed to the newest. So it knows what is new in one that is NACKed.
type history struct {
	versions map[ResourceID][]publishedVersion // oldest first
	reported map[ResourceID]string             // versions that edges ACKed or had when they connected
	// nacked are the messages of NACKed versions. An edge does not get a version
	// again that it has NACKed, so nobody repeats the NACK.
	nacked map[ResourceID]map[string]string // by version
}

func newHistory() history {
	return history{versions: map[ResourceID][]publishedVersion{}, reported: map[ResourceID]string{}, nacked: map[ResourceID]map[string]string{}}
}

// publish adds a new version of a resource.
func (h history) publish(resource *envoy.Resource, objects map[fleet.ObjectRef]ObjectVersion) {
	id := idOf(resource)
	versions := h.versions[id]
	if n := len(versions); n > 0 && versions[n-1].version == resource.Version {
		return
	}
	// A NACKed version may return: its route was repaired and broken again.
	versions = slices.DeleteFunc(versions, func(v publishedVersion) bool { return v.version == resource.Version })
	next := publishedVersion{version: resource.Version, routes: routeVersions{}, acked: h.reported[id] == resource.Version}
	for _, ref := range resource.Sources {
		if isRoute(ref) {
			next.routes[ref] = objects[ref]
		}
	}
	h.versions[id] = prune(append(versions, next))
}

// isRoute tells routes from the other sources of a resource.
func isRoute(ref fleet.ObjectRef) bool {
	return ref.Kind != envoy.GatewayKind && ref.Kind != envoy.SecretKind
}

// prune keeps the last two versions that were ACKed, and all newer ones: one
// edge may NACK what another has just ACKed.
func prune(versions []publishedVersion) []publishedVersion {
	acked := 0
	for i := len(versions) - 1; i >= 0; i-- {
		if !versions[i].acked {
			continue
		}
		if acked++; acked == 2 {
			return slices.Clone(versions[i:])
		}
	}
	if len(versions) > maxVersions {
		return slices.Clone(versions[len(versions)-maxVersions:])
	}
	return versions
}

// keepOnly forgets the resources that are no longer published.
func (h history) keepOnly(published map[ResourceID]bool) {
	maps.DeleteFunc(h.versions, func(id ResourceID, _ []publishedVersion) bool { return !published[id] })
	maps.DeleteFunc(h.reported, func(id ResourceID, _ string) bool { return !published[id] })
	maps.DeleteFunc(h.nacked, func(id ResourceID, _ map[string]string) bool { return !published[id] })
}

// ack notes that an edge took a version, or had it when it connected.
func (h history) ack(id ResourceID, version string) {
	h.reported[id] = version
	for i := range h.versions[id] {
		if h.versions[id][i].version == version {
			h.versions[id][i].acked = true
		}
	}
}

// find returns the index of a version, or -1.
func (h history) find(id ResourceID, version string) int {
	return slices.IndexFunc(h.versions[id], func(v publishedVersion) bool { return v.version == version })
}

// newest returns the version of a resource that was published last.
func (h history) newest(id ResourceID) publishedVersion {
	if versions := h.versions[id]; len(versions) > 0 {
		return versions[len(versions)-1]
	}
	return publishedVersion{}
}

// isAcked reports whether an edge took the newest version of a resource. It is
// true of a resource that does not exist.
func (h history) isAcked(id ResourceID) bool {
	newest := h.newest(id)
	return newest.version == "" || newest.acked
}

// nack notes that an edge rejected a version.
func (h history) nack(n Nack) {
	if h.nacked[n.Resource] == nil || len(h.nacked[n.Resource]) >= maxVersions {
		h.nacked[n.Resource] = map[string]string{}
	}
	h.nacked[n.Resource][n.Version] = n.Message
}

// standing are the NACKs of versions that are published now, by resource.
func (h history) standing() []Nack {
	var out []Nack
	for id, versions := range h.nacked {
		version := h.newest(id).version
		if message, ok := versions[version]; ok {
			out = append(out, Nack{id, version, message})
		}
	}
	slices.SortFunc(out, func(a, b Nack) int { return a.Resource.compare(b.Resource) })
	return out
}

// candidates returns the routes that are new or changed in the NACKed version
// compared with the last version that was ACKed before it. If Envoy's message
// quotes a value of some of them, it returns only those. If no route changed,
// it returns those of all its routes that the message quotes. definite: each of
// them is at fault, and not just one of them.
//
// acceptedBeforeStart takes the place of the ACKed version while there is none.
// quoted returns which routes have a value that the message quotes.
func (h history) candidates(n Nack, acceptedBeforeStart routeVersions, quoted func(message string) map[fleet.RouteRef]bool) (found []fleet.RouteRef, definite bool) {
	versions := h.versions[n.Resource]
	at := h.find(n.Resource, n.Version)
	if at < 0 {
		return nil, false
	}
	acked := acceptedBeforeStart
	for _, v := range versions[:at] {
		if v.acked {
			acked = v.routes
		}
	}
	var all, changed []fleet.RouteRef
	for ref, object := range versions[at].routes {
		all = append(all, ref)
		if before, ok := acked[ref]; !ok || before != object {
			changed = append(changed, ref)
		}
	}
	found = changed
	if len(changed) == 0 {
		found = all
	}
	if len(found) > 0 { // quoted reads every rule of the Model
		inMessage := quoted(n.Message)
		found = slices.DeleteFunc(slices.Clone(found), func(ref fleet.RouteRef) bool { return !inMessage[ref] })
	}
	if definite = len(found) > 0; !definite {
		found = changed
	}
	slices.SortFunc(found, fleet.RouteRef.Compare)
	return found, definite || len(found) == 1
}

// minQuoteLength is the length from which a value in Envoy's message counts as
// a quotation: shorter ones occur in any sentence.
const minQuoteLength = 5

// quotedRoutes returns the routes that have a value which Envoy's message
// quotes: Envoy repeats regular expressions and header values that it rejects.
func quotedRoutes(m *model.Model, message string) map[fleet.RouteRef]bool {
	routes := map[fleet.RouteRef]bool{}
	for rule := range rulesIn(m) {
		if !routes[rule.Origin.Route] && slices.ContainsFunc(quotableValues(rule), func(v string) bool { return strings.Contains(message, v) }) {
			routes[rule.Origin.Route] = true
		}
	}
	return routes
}

// quotableValues are the values of a rule that Envoy repeats when it rejects them.
func quotableValues(rule *model.Rule) []string {
	var values []string
	add := func(value string) {
		if len(value) >= minQuoteLength {
			values = append(values, value)
		}
	}
	if rule.Match.Path.Kind == model.PathRegex {
		add(rule.Match.Path.Value)
	}
	for _, matches := range [][]model.ValueMatch{rule.Match.Headers, rule.Match.Query} {
		for _, match := range matches {
			if match.Regex {
				add(match.Value)
			}
		}
	}
	for _, headers := range [][]model.Header{rule.Request.Set, rule.Request.Add, rule.Response.Set, rule.Response.Add} {
		for _, header := range headers {
			add(header.Value)
		}
	}
	return values
}

// rulesIn are all rules of a Model.
func rulesIn(m *model.Model) func(yield func(*model.Rule) bool) {
	return func(yield func(*model.Rule) bool) {
		for l := range m.Listeners {
			for c := range m.Listeners[l].Chains {
				hosts := m.Listeners[l].Chains[c].Hosts
				for h := range hosts {
					for r := range hosts[h].Rules {
						if !yield(&hosts[h].Rules[r]) {
							return
						}
					}
				}
			}
		}
	}
}
