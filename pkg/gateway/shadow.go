package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// shadow is a match of a route that never applies on a host, because a route that
// comes earlier has the same match.
type shadow struct {
	gateway fleet.ObjectName
	host    string
	origin  model.Origin
	by      fleet.RouteRef
}

// findShadows are the rules of a host that never apply, in precedence order. A
// match that a route repeats itself is not reported.
func findShadows(rules []model.Rule) []shadow {
	var shadows []shadow
	first := make(map[string]fleet.RouteRef, len(rules))
	for i := range rules {
		rule := &rules[i]
		key := matchKey(&rule.Match)
		by, found := first[key]
		switch {
		case !found:
			first[key] = rule.Origin.Route
		case by != rule.Origin.Route:
			shadows = append(shadows, shadow{origin: rule.Origin, by: by})
		}
	}
	return shadows
}

// matchKey is equal for matches that select the same requests.
func matchKey(m *model.Match) string {
	var key strings.Builder
	fmt.Fprintf(&key, "%s %q %q", m.Path.Kind, m.Path.Value, m.Method)
	for _, values := range [][]model.ValueMatch{m.Headers, m.Query} {
		key.WriteString(" |")
		for _, v := range slices.SortedFunc(slices.Values(values), func(x, y model.ValueMatch) int { return cmp.Compare(x.Name, y.Name) }) {
			fmt.Fprintf(&key, " %q %q %t", v.Name, v.Value, v.Regex)
		}
	}
	return key.String()
}

// reportShadows adds the condition Shadowed to the reports on routes, for each
// parent at which a match never applies.
func (b *build) reportShadows() {
	slices.SortFunc(b.shadows, func(x, y shadow) int {
		return cmp.Or(x.origin.Route.Compare(y.origin.Route), x.gateway.Compare(y.gateway),
			cmp.Compare(x.origin.Rule, y.origin.Rule), cmp.Compare(x.origin.Match, y.origin.Match), cmp.Compare(x.host, y.host))
	})
	type place struct {
		route   fleet.RouteRef
		gateway fleet.ObjectName
	}
	byPlace := map[place][]shadow{}
	for _, s := range b.shadows {
		p := place{s.origin.Route, s.gateway}
		byPlace[p] = append(byPlace[p], s)
	}
	if len(byPlace) == 0 {
		return
	}
	for i := range b.reports {
		if len(b.reports[i].Parents) == 0 {
			continue
		}
		report := *b.reports[i] // a Memo may have the original
		report.Parents = slices.Clone(report.Parents)
		b.reports[i] = &report
		for j := range report.Parents {
			parent := &report.Parents[j]
			gateway := parentName(report.Ref.Object(), &parent.ParentRef)
			if found := byPlace[place{report.Ref.Object(), gateway}]; len(found) > 0 && parent.Conditions[0].Status == "True" {
				parent.Conditions = append(slices.Clip(parent.Conditions), condition.RouteShadowed(describeShadow(found[0]), found[0].by, len(found)-1))
			}
		}
	}
}

func describeShadow(s shadow) string {
	return fmt.Sprintf("rules[%d].matches[%d] on host %q", s.origin.Rule, s.origin.Match, s.host)
}
