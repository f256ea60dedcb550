package gateway

import (
	"fmt"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// routePlan is a route's spec in the Model's terms, before references are
// resolved. It is a function of the route alone, so a Memo may keep it.
type routePlan struct {
	hosts   []string // as in the Model; "*" alone where the route names none
	problem string   // makes the whole route invalid
	rules   []rulePlan
	regexes map[string]regex // by pattern

	clusters cost // of all clusters that it may have
	each     cost // of its rules at one place
}

// rulePlan is one rule of a route.
type rulePlan struct {
	problem      string     // the rule has a value that is refused; its matches answer 500
	incompatible bool       // the problem is that filters exclude each other
	base         model.Rule // all but Origin.Match, Match, Forward, Respond and Mirrors
	matches      []matchPlan
	regexSteps   int // of its largest regular expression
	backends     []backendPlan
	mirrors      []mirrorPlan
}

type matchPlan struct {
	index int // in spec.rules[].matches
	match model.Match
}

type backendPlan struct {
	ref      reference
	weight   uint32
	request  model.HeaderChanges
	response model.HeaderChanges
}

// hasFilters says whether the backend changes headers and so needs its own Target.
func (b *backendPlan) hasFilters() bool { return !empty(b.request) || !empty(b.response) }

type mirrorPlan struct {
	ref                    reference
	numerator, denominator uint32
}

// reference is a backendRef with its defaults filled in.
type reference struct {
	group, kind string
	name        fleet.ObjectName
	port        int32 // 0: none given
}

func (r reference) backend() (fleet.Backend, bool) {
	switch {
	case r.group == "" && r.kind == string(fleet.Service):
		return fleet.Backend{Kind: fleet.Service, Name: r.name}, true
	case r.group == mcsv1beta1.GroupName && r.kind == string(fleet.Import):
		return fleet.Backend{Kind: fleet.Import, Name: r.name}, true
	default:
		return fleet.Backend{}, false
	}
}

func empty(c model.HeaderChanges) bool { return len(c.Set)+len(c.Add)+len(c.Remove) == 0 }

// duration parses a GEP-2257 duration, and says whether it is valid and at least
// minimum.
func duration(text gatewayv1.Duration, minimum time.Duration) (time.Duration, bool) {
	parsed, err := time.ParseDuration(string(text))
	return parsed, err == nil && parsed >= minimum
}

// timeout reads a timeout of a route; nil: not set.
func timeout(field string, given *gatewayv1.Duration) (*time.Duration, string) {
	if given == nil {
		return nil, ""
	}
	parsed, ok := duration(*given, 0)
	if !ok {
		return nil, fmt.Sprintf("%s: %q is not a duration; use one like 10s (GEP-2257)", field, shortened(string(*given)))
	}
	return &parsed, ""
}

func referenceTo(namespace string, ref *gatewayv1.BackendObjectReference) reference {
	r := reference{kind: string(fleet.Service), name: fleet.ObjectName{Namespace: namespace, Name: string(ref.Name)}}
	if ref.Group != nil {
		r.group = string(*ref.Group)
	}
	if ref.Kind != nil {
		r.kind = string(*ref.Kind)
	}
	if ref.Namespace != nil && *ref.Namespace != "" {
		r.name.Namespace = string(*ref.Namespace)
	}
	if ref.Port != nil {
		r.port = *ref.Port
	}
	return r
}
