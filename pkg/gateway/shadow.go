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
	unread  bool // the two were not compared
}

// maxComparisons bounds the work of a shadowSearch, in steps of regular expressions. The
// namespaces of a host have equal parts for the comparisons with their rules. Beyond its
// part a rule counts as one that takes requests: so nobody hides one behind many.
const maxComparisons = 1_000_000

// shadowSearch looks for the shadows of a host's rules.
type shadowSearch struct {
	regexes map[fleet.RouteRef]map[string]regex
	earlier map[model.PathMatch][]*rulesOfNamespace // by path; regular expressions under the zero value
	work    map[string]*int                         // that is left to each namespace
}

// rulesOfNamespace are the rules of one namespace that came so far.
type rulesOfNamespace struct {
	namespace string
	rules     []*model.Rule
}

// findShadows are the rules of routes that never apply, and those that lose
// requests to another namespace, in precedence order. A match that a route repeats
// itself is not reported. Nor is a longer prefix or an exact path of another
// namespace: that is how a host is divided.
func findShadows(routes []*routeResult, rules []model.Rule) []shadow {
	s := shadowSearch{regexes: map[fleet.RouteRef]map[string]regex{}, earlier: map[model.PathMatch][]*rulesOfNamespace{}, work: map[string]*int{}}
	for _, r := range routes {
		s.regexes[r.ref], s.work[r.ref.Name.Namespace] = r.plan.regexes, new(int)
	}
	for _, left := range s.work {
		*left = maxComparisons / len(s.work)
	}
	var shadows []shadow
	first := make(map[string]*model.Rule, len(rules))
	for i := range rules {
		rule := &rules[i]
		key := matchKey(&rule.Match)
		if by := first[key]; by == nil {
			first[key] = rule
			if len(s.work) == 1 {
				continue
			}
			if by, unread := s.takesFrom(rule); by != nil {
				shadows = append(shadows, shadow{origin: rule.Origin, by: by.Origin, partly: true, unread: unread})
			}
		} else if by.Origin.Route != rule.Origin.Route {
			shadows = append(shadows, shadow{origin: rule.Origin, by: by.Origin})
		}
		path := rule.Match.Path
		if path.Kind == model.PathRegex {
			path = model.PathMatch{}
		}
		s.add(path, rule)
	}
	return shadows
}

func (s *shadowSearch) add(path model.PathMatch, rule *model.Rule) {
	namespace := rule.Origin.Route.Name.Namespace
	for _, of := range s.earlier[path] {
		if of.namespace == namespace {
			of.rules = append(of.rules, rule)
			return
		}
	}
	s.earlier[path] = append(s.earlier[path], &rulesOfNamespace{namespace, []*model.Rule{rule}})
}

// takesFrom is an earlier rule that takes requests from a rule of another namespace, or
// nil: one with the same path, or with a regular expression that matches some of the
// rule's paths. unread: none is known, and to compare with this one takes too long.
func (s *shadowSearch) takesFrom(rule *model.Rule) (by *model.Rule, unread bool) {
	for _, path := range []model.PathMatch{rule.Match.Path, {}} {
		for _, of := range s.earlier[path] {
			if of.namespace == rule.Origin.Route.Name.Namespace {
				continue
			}
			left := s.work[of.namespace]
			for _, other := range of.rules {
				if *left--; *left < 0 {
					by, unread = other, true
					break
				}
				if !disjoint(&other.Match, &rule.Match) && (other.Match.Path == rule.Match.Path || s.matchesSome(other, rule, left)) {
					return other, false
				}
			}
		}
	}
	return by, unread
}

// matchesSome says whether the regular expression of one rule matches some paths
// of another rule. If that is a regular expression, too, it is a guess: paths that
// begin alike may still differ.
func (s *shadowSearch) matchesSome(expression, rule *model.Rule, left *int) bool {
	program := s.regexes[expression.Origin.Route][expression.Match.Path.Value].program
	switch path := rule.Match.Path; {
	case path.Kind == model.PathRegex:
		literal, _ := s.regexes[rule.Origin.Route][path.Value].program.Prefix()
		_, goesOn := read(program, literal, left)
		return goesOn
	case path.Kind == model.PathExact:
		matches, _ := read(program, path.Value, left)
		return matches
	default:
		matches, _ := read(program, path.Value, left)
		_, goesOn := read(program, strings.TrimSuffix(path.Value, "/")+"/", left)
		return matches || goesOn
	}
}

// read says whether a program matches a text, and whether it matches one that
// begins with it. A program with word boundaries may match anything, and so may one that
// there is no work left for.
func read(program *syntax.Prog, text string, left *int) (matches, goesOn bool) {
	d := determinization{program: program, mark: make([]int, len(program.Inst))}
	state, ok := d.closure([]uint32{uint32(program.Start)})
	for _, char := range text {
		if !ok || len(state) == 0 {
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
	*left -= d.work
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
		if at.route.Name.Namespace != by.route.Name.Namespace && !s.unread {
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
	if s.unread {
		return condition.RouteNotCompared(match, s.by.Route, describeMatch(s.by), more)
	}
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
