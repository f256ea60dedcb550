package gateway

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// build is the state of one Build.
type build struct {
	in              Input
	last            *Memo // of the last Build; never nil
	same            bool  // all inputs except routes are the same objects as in last
	memo            *Memo // of this Build
	index           *index
	cached          map[routeSource]*routeResult // of the last Build
	model           model.Model
	reports         []*objectReport
	policyReports   []*objectReport                    // for reportPolicies
	parents         map[fleet.ObjectName]*gatewayState // Gateways of ours
	policies        map[fleet.ServiceName]*policy      // in force
	secrets         map[fleet.ObjectName]string        // certificateProblem of each Secret checked
	shared          map[fleet.RouteRef]bool            // routes that share a host with another route
	accounts        *accounts
	overBudget      map[routeAt]condition.Condition // routes that a Gateway has no room for
	kept            map[fleet.RouteRef]*fallback    // routes that are served as they were accepted before
	slowdowns       slowdowns
	shadows         []shadow
	narrow          []*narrowHost // hosts with wider ones
	widerAdmissions *WiderAdmissions
	without         map[routeAt]hostsWithout // routes that some of these have no room for
}

// Build translates a snapshot of objects into the Model that all edges serve.
// Its Result also has all that Report needs.
func Build(in Input) Result {
	b := &build{in: in, last: in.Memo}
	if b.last == nil {
		b.last = new(Memo)
	}
	otherInputs := in
	otherInputs.Routes, otherInputs.Memo = nil, nil
	b.same = b.last.index != nil && sameOtherInputs(&b.last.otherInputs, &otherInputs)
	if patched, ok := b.patch(); ok {
		return patched
	}
	b.memo = &Memo{otherInputs: otherInputs, routes: in.Routes, secrets: map[memoKey]string{}, merged: mergedByOldest{}}
	if b.index = b.last.index; !b.same {
		b.index = indexOf(in)
	}
	b.buildAll()
	result := Result{Model: b.model, WiderAdmissions: b.widerAdmissions, reports: b.reports}
	b.memo.index, b.memo.parents, b.memo.policies, b.memo.shared, b.memo.result = b.index, b.parents, b.policies, b.shared, result
	b.memo.accounts, b.memo.overBudget, b.memo.kept, b.memo.slowdowns = b.accounts, b.overBudget, b.kept, b.slowdowns
	result.Memo = b.memo
	return result
}

// buildAll builds the whole Model and all reports.
func (b *build) buildAll() {
	in := &b.in
	b.parents = make(map[fleet.ObjectName]*gatewayState, len(in.Gateways))
	b.secrets, b.shared = map[fleet.ObjectName]string{}, map[fleet.RouteRef]bool{}
	b.reports = make([]*objectReport, 0, len(in.GatewayClasses)+len(in.Gateways)+len(in.Routes)+len(in.Policies))
	b.model.Assignments = make([]model.Assignment, 0, len(in.Routes))
	b.reportClasses()
	b.evaluatePolicies()
	for _, gateway := range sortedByAge(in.Gateways) {
		b.readGateway(gateway)
	}
	b.memo.results = b.evaluateRoutes()
	order := byAge(in.Routes, (*Route).age)
	b.admit(order)
	for i, at := range order {
		b.attach(in.Routes[at], b.memo.results[at], i)
	}
	for _, p := range b.parents {
		b.serve(p)
		b.reportGateway(p)
	}
	b.serveWider()
	b.slowChecks()
	b.reportPolicies()
	b.addSecrets()
	b.reportShadows()
	b.reportWider()
	b.sort()
}

func (b *build) sort() {
	slices.SortFunc(b.model.Listeners, func(x, y model.Listener) int {
		return cmp.Or(x.Gateway.Compare(y.Gateway), cmp.Compare(x.Port, y.Port))
	})
	b.model.Assignments = sorted(b.model.Assignments, func(x, y *model.Assignment) int { return strings.Compare(x.Key, y.Key) })
	slices.SortFunc(b.model.Secrets, func(x, y model.Secret) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.reports, func(x, y *objectReport) int { return x.Ref.Object().Compare(y.Ref.Object()) })
}

// sorted is a stably sorted copy. It sorts pointers, so that large values are
// copied only once.
func sorted[T any](values []T, compare func(x, y *T) int) []T {
	if len(values) == 0 {
		return nil
	}
	order := make([]*T, len(values))
	for i := range values {
		order[i] = &values[i]
	}
	slices.SortStableFunc(order, compare)
	result := make([]T, len(values))
	for i, value := range order {
		result[i] = *value
	}
	return result
}

// sortedByAge are pointers to objects, the oldest first, then by namespace and
// name: the Gateway API's order for conflicts.
func sortedByAge[T any, O interface {
	*T
	metav1.Object
}](objects []T) []*T {
	pointers := make([]*T, len(objects))
	for i := range objects {
		pointers[i] = &objects[i]
	}
	sorted := make([]*T, len(objects))
	for i, at := range byAge(pointers, func(o *T) age { return ageOf(O(o)) }) {
		sorted[i] = pointers[at]
	}
	return sorted
}

// age is the sort key of sortedByAge.
type age struct {
	created int64
	name    fleet.ObjectName
	kind    fleet.Kind
}

func ageOf(o metav1.Object) age {
	return age{created: o.GetCreationTimestamp().Unix(), name: fleet.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}}
}

func (r *Route) age() age { return age{created: r.Created.Unix(), name: r.Ref.Name, kind: r.Ref.Kind} }

// byAge are the objects' indices in the order of sortedByAge. Two routes of the
// same age and name are ordered by kind.
func byAge[T any](objects []*T, of func(*T) age) []int {
	ages, order := make([]age, len(objects)), make([]int, len(objects))
	for i, object := range objects {
		ages[i], order[i] = of(object), i
	}
	slices.SortFunc(order, func(x, y int) int {
		a, b := &ages[x], &ages[y]
		return cmp.Or(cmp.Compare(a.created, b.created), byText(a.name, b.name), cmp.Compare(a.kind, b.kind))
	})
	return order
}

// byText compares names as the texts "namespace/name", as the Gateway API does: a-b/x is
// before a/y, because '-' is before '/'.
func byText(a, b fleet.ObjectName) int {
	switch n := min(len(a.Namespace), len(b.Namespace)); {
	case a.Namespace == b.Namespace:
		return cmp.Compare(a.Name, b.Name)
	case a.Namespace[:n] != b.Namespace[:n]:
		return cmp.Compare(a.Namespace, b.Namespace)
	case len(a.Namespace) == n:
		return cmp.Compare('/', b.Namespace[n])
	default:
		return cmp.Compare(a.Namespace[n], '/')
	}
}
