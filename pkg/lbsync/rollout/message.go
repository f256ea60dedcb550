package rollout

import (
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// maxQuotingWords is the length of the longest message of which a quotation is
// all that it says about a route: some Envoys print a whole message with all
// routes when one field of it is invalid.
const maxQuotingWords = 512

// readableMessage is Envoy's message, if the owner of a route may read it: nobody else's
// routes are in the resource, or the message quotes this route alone.
func (r *Rollout) readableMessage(e *edge, n ResourceNack, ref fleet.RouteRef, routes []fleet.RouteRef) string {
	others := func(other fleet.RouteRef) bool { return other.Name.Namespace != ref.Name.Namespace }
	if !slices.ContainsFunc(routes, others) {
		return n.Message
	}
	quoted := quotedIn(r.modelOf(e), routes, n.Message)
	if len(n.Message) <= maxQuotingWords && len(quoted) == 1 && quoted[0] == ref {
		return n.Message
	}
	return ""
}

// minQuoteLength is the length from which a value in Envoy's message counts as
// a quotation: shorter ones occur in any sentence.
const minQuoteLength = 5

// quotedIn returns those routes that have a value which Envoy's message quotes:
// Envoy repeats regular expressions and header values that it rejects.
func quotedIn(m *model.Model, routes []fleet.RouteRef, message string) []fleet.RouteRef {
	wanted := make(map[fleet.RouteRef]bool, len(routes))
	for _, ref := range routes {
		wanted[ref] = true
	}
	var quoted []fleet.RouteRef
	for rule := range rulesIn(m) {
		ref := rule.Origin.Route
		if wanted[ref] && slices.ContainsFunc(quotableValues(rule), func(v string) bool { return strings.Contains(message, v) }) {
			quoted = append(quoted, ref)
			delete(wanted, ref)
		}
	}
	return quoted
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
