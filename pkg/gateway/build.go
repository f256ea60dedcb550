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

// build is one Build on its way.
type build struct {
	in       Input
	index    *index
	memory   *memory
	model    model.Model
	reports  []condition.Report
	parents  map[fleet.ObjectName]*parent  // Gateways of ours
	policies map[fleet.ServiceName]*policy // in force
	secrets  map[fleet.ObjectName]string   // certificateFault of each Secret looked at
	shadows  []shadow
}

// Build says what a snapshot means: what all edges are to serve, and a verdict
// for every object that has a status of ours.
func Build(in Input) Result {
	b := &build{
		in: in, memory: newMemory(in),
		parents: make(map[fleet.ObjectName]*parent, len(in.Gateways)),
		secrets: map[fleet.ObjectName]string{},
		reports: make([]condition.Report, 0, len(in.GatewayClasses)+len(in.Gateways)+len(in.Routes)+len(in.Policies)),
	}
	b.index = b.memory.next.index
	b.model.Assignments = make([]model.Assignment, 0, len(in.Routes))
	b.judgeClasses()
	b.judgePolicies()
	for _, gateway := range sortedByAge(in.Gateways) {
		b.readGateway(gateway)
	}
	for _, route := range sortedByAge(in.Routes) {
		b.readRoute(route)
	}
	for _, p := range b.parents {
		b.serve(p)
		b.reportGateway(p)
	}
	b.addSecrets()
	b.reportShadows()
	b.sort()
	return Result{Model: b.model, Reports: b.reports, Memo: b.memory.next}
}

func (b *build) sort() {
	slices.SortFunc(b.model.Listeners, func(x, y model.Listener) int {
		return cmp.Or(x.Gateway.Compare(y.Gateway), cmp.Compare(x.Port, y.Port))
	})
	b.model.Assignments = sorted(b.model.Assignments, func(x, y *model.Assignment) int { return strings.Compare(x.Key, y.Key) })
	slices.SortFunc(b.model.Secrets, func(x, y model.Secret) int { return strings.Compare(x.Name, y.Name) })
	b.reports = sorted(b.reports, func(x, y *condition.Report) int {
		return cmp.Or(cmp.Compare(x.Ref.Kind, y.Ref.Kind), x.Ref.Name.Compare(y.Ref.Name))
	})
}

// sorted is a copy in order, in which what ties stays as it was. Large values
// are moved once only.
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

// sortedByAge points at objects, the oldest first, then by namespace and name:
// the order in which the Gateway API lets one win over another.
func sortedByAge[T any, O interface {
	*T
	metav1.Object
}](objects []T) []*T {
	type aged struct {
		object  *T
		created int64
		name    fleet.ObjectName
	}
	byAge := make([]aged, len(objects))
	for i := range objects {
		object := O(&objects[i])
		byAge[i] = aged{object: &objects[i], created: object.GetCreationTimestamp().Unix(),
			name: fleet.ObjectName{Namespace: object.GetNamespace(), Name: object.GetName()}}
	}
	slices.SortFunc(byAge, func(a, b aged) int {
		return cmp.Or(cmp.Compare(a.created, b.created), a.name.Compare(b.name))
	})
	sorted := make([]*T, len(byAge))
	for i := range byAge {
		sorted[i] = byAge[i].object
	}
	return sorted
}
