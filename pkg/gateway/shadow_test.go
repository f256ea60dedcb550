package gateway

import (
	"fmt"
	"regexp/syntax"
	"testing"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Nobody hides an expression that takes requests of another namespace behind many that are long to read; nor does one
// namespace have those of a third one unread.
func TestNoTakeoverIsHidden(t *testing.T) {
	ref := func(namespace string) fleet.RouteRef {
		return fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: namespace, Name: "a"}}
	}
	var routes []*routeResult
	var rules []model.Rule
	add := func(namespace string, patterns ...string) {
		regexes := map[string]regex{}
		for i, pattern := range patterns {
			parsed, err := syntax.Parse(pattern, syntax.Perl)
			testkit.Must(t, err)
			program, err := syntax.Compile(parsed.Simplify())
			testkit.Must(t, err)
			regexes[pattern] = regex{program: program}
			rules = append(rules, model.Rule{Origin: model.Origin{Route: ref(namespace), Match: i}, Match: model.Match{Path: model.PathMatch{Kind: model.PathRegex, Value: pattern}}})
		}
		routes = append(routes, &routeResult{ref: ref(namespace), plan: &routePlan{regexes: regexes}})
	}
	var long []string
	for i := range 800 {
		long = append(long, fmt.Sprintf("(?:a?){300}%d", i))
	}
	add("evil", append(long, "/p.*")...)
	add("third", "/c.*")
	for i, path := range []string{"/pay", "/cart"} {
		rules = append(rules, model.Rule{Origin: model.Origin{Route: ref("shop"), Match: i}, Match: model.Match{Path: model.PathMatch{Kind: model.PathPrefix, Value: path}}})
	}
	routes = append(routes, &routeResult{ref: ref("shop"), plan: &routePlan{}})
	by := map[int]string{} // of the matches of shop
	for _, s := range findShadows(routes, rules) {
		if s.origin.Route == ref("shop") {
			by[s.origin.Match] = s.by.Route.Name.Namespace
		}
	}
	if by[0] != "evil" || by[1] != "third" {
		t.Errorf("the matches of shop lose requests to %v", by)
	}
}
