package gateway

import (
	"cmp"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// shadow is a match of a route that never applies on a host, because a route that
// comes earlier has the same match; or one from which a route of another namespace
// takes requests.
type shadow struct {
	gateway fleet.ObjectName
	host    string
	origin  model.Origin
	by      model.Origin
	partly  bool // by is another match
}

// maxComparisons bounds the work of a shadowSearch, in steps of regular
// expressions. What would come after it is not reported.
const maxComparisons = 1_000_000

// shadowSearch looks for the shadows of a host's rules.
type shadowSearch struct {
	regexes map[fleet.RouteRef]map[string]regex
	earlier map[model.PathMatch][]*model.Rule // rules by path; regular expressions under the zero value
	work    int                               // that is left
}

// findShadows are the rules of routes that never apply, and those that lose
// requests to another namespace, in precedence order. A match that a route repeats
// itself is not reported. Nor is a longer prefix or an exact path of another
// namespace: that is how a host is divided.
func findShadows(routes []*routeResult, rules []model.Rule) []shadow {
	s := shadowSearch{regexes: map[fleet.RouteRef]map[string]regex{}, earlier: map[model.PathMatch][]*model.Rule{}, work: maxComparisons}
	shared := false // by several namespaces
	for _, r := range routes {
		s.regexes[r.ref] = r.plan.regexes
		shared = shared || r.ref.Name.Namespace != routes[0].ref.Name.Namespace
	}
	var shadows []shadow
	first := make(map[string]*model.Rule, len(rules))
	for i := range rules {
		rule := &rules[i]
		key := matchKey(&rule.Match)
		if by := first[key]; by == nil {
			first[key] = rule
			if !shared {
				continue
			}
			if by := s.takesFrom(rule); by != nil {
				shadows = append(shadows, shadow{origin: rule.Origin, by: by.Origin, partly: true})
			}
		} else if by.Origin.Route != rule.Origin.Route {
			shadows = append(shadows, shadow{origin: rule.Origin, by: by.Origin})
		}
		path := rule.Match.Path
		if path.Kind == model.PathRegex {
			path = model.PathMatch{}
		}
		s.earlier[path] = append(s.earlier[path], rule)
	}
	return shadows
}

// takesFrom is the first of the earlier rules that takes requests from a rule of
// another namespace, or nil: one with the same path, or with a regular expression
// that matches some of the rule's paths.
func (s *shadowSearch) takesFrom(rule *model.Rule) *model.Rule {
	takes := func(other *model.Rule) bool {
		s.work--
		return other.Origin.Route.Name.Namespace != rule.Origin.Route.Name.Namespace && !disjoint(&other.Match, &rule.Match)
	}
	for _, other := range s.earlier[rule.Match.Path] {
		if takes(other) && s.work > 0 {
			return other
		}
	}
	for _, other := range s.earlier[model.PathMatch{}] {
		if s.work > 0 && takes(other) && s.matchesSome(other, rule) {
			return other
		}
	}
	return nil
}

// matchesSome says whether the regular expression of one rule matches some paths
// of another rule. If that is a regular expression, too, it is a guess: paths that
// begin alike may still differ.
func (s *shadowSearch) matchesSome(expression, rule *model.Rule) bool {
	program := s.regexes[expression.Origin.Route][expression.Match.Path.Value].program
	switch path := rule.Match.Path; {
	case path.Kind == model.PathRegex:
		literal, _ := s.regexes[rule.Origin.Route][path.Value].program.Prefix()
		_, goesOn := s.read(program, literal)
		return goesOn
	case path.Kind == model.PathExact:
		matches, _ := s.read(program, path.Value)
		return matches
	default:
		matches, _ := s.read(program, path.Value)
		_, goesOn := s.read(program, strings.TrimSuffix(path.Value, "/")+"/")
		return matches || goesOn
	}
}

// read says whether a program matches a text, and whether it matches one that
// begins with it. A program with word boundaries may match anything.
func (s *shadowSearch) read(program *syntax.Prog, text string) (matches, goesOn bool) {
	d := determinization{program: program, mark: make([]int, len(program.Inst))}
	state, ok := d.closure([]uint32{uint32(program.Start)})
	for _, char := range text {
		if !ok || len(state) == 0 || s.work < 0 {
			break
		}
		var next []uint32
		for _, pc := range state {
			if inst := &program.Inst[pc]; inst.Op != syntax.InstMatch && inst.MatchRune(char) {
				next = append(next, inst.Out)
			}
		}
		state, ok = d.closure(next)
	}
	s.work -= d.work
	isMatch := func(pc uint32) bool { return program.Inst[pc].Op == syntax.InstMatch }
	return !ok || slices.ContainsFunc(state, isMatch), !ok || len(state) > 0
}

// disjoint says that no request satisfies both matches, whatever its path is: they
// want other methods, or other values of a header or query parameter.
func disjoint(x, y *model.Match) bool {
	if x.Method != "" && y.Method != "" && x.Method != y.Method {
		return true
	}
	other := func(x, y []model.ValueMatch) bool {
		return slices.ContainsFunc(x, func(a model.ValueMatch) bool {
			return slices.ContainsFunc(y, func(b model.ValueMatch) bool {
				return a.Name == b.Name && !a.Regex && !b.Regex && a.Value != b.Value
			})
		})
	}
	return other(x.Headers, y.Headers) || other(x.Query, y.Query)
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
		whole := func(s shadow) int {
			if s.partly {
				return 1
			}
			return 0
		}
		return cmp.Or(x.origin.Route.Compare(y.origin.Route), cmp.Compare(whole(x), whole(y)), x.gateway.Compare(y.gateway),
			cmp.Compare(x.origin.Rule, y.origin.Rule), cmp.Compare(x.origin.Match, y.origin.Match), cmp.Compare(x.host, y.host))
	})
	// Of a route: what it loses, and what it takes from other namespaces.
	lost, taken := map[routeAt][]shadow{}, map[routeAt][]shadow{}
	for _, s := range b.shadows {
		at, by := routeAt{s.origin.Route, s.gateway}, routeAt{s.by.Route, s.gateway}
		lost[at] = append(lost[at], s)
		if at.route.Name.Namespace != by.route.Name.Namespace {
			taken[by] = append(taken[by], s)
		}
	}
	b.addConditions(func(at routeAt) (conditions []condition.Condition) {
		if found := lost[at]; len(found) > 0 {
			conditions = append(conditions, found[0].lost(len(found)-1))
		}
		if found := taken[at]; len(found) > 0 {
			conditions = append(conditions, found[0].taken(len(found)-1))
		}
		return conditions
	}, len(lost) > 0)
}

// addConditions adds conditions to the reports on routes, for each parent that accepts
// them.
func (b *build) addConditions(of func(routeAt) []condition.Condition, any bool) {
	if !any {
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
			at := routeAt{report.Ref.Object(), parentName(report.Ref.Object(), &parent.ParentRef)}
			if more := of(at); parent.Conditions[0].Status == "True" && len(more) > 0 {
				parent.Conditions = append(slices.Clip(parent.Conditions), more...)
			}
		}
	}
}

// lost is the condition of the route that loses requests.
func (s shadow) lost(more int) condition.Condition {
	match := describeMatch(s.origin) + fmt.Sprintf(" on host %q", s.host)
	if s.partly {
		return condition.RouteTakenOver(match, s.by.Route, describeMatch(s.by), more)
	}
	return condition.RouteShadowed(match, s.by.Route, more)
}

// taken is the condition of the route that takes them.
func (s shadow) taken(more int) condition.Condition {
	return condition.RouteTakesOver(describeMatch(s.by)+fmt.Sprintf(" on host %q", s.host), s.origin.Route, describeMatch(s.origin), more)
}

func describeMatch(o model.Origin) string {
	return fmt.Sprintf("rules[%d].matches[%d]", o.Rule, o.Match)
}
