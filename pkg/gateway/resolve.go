package gateway

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// internalServerError is the response to requests for an unusable backend (apis/v1
// HTTPRouteRule.BackendRefs).
const internalServerError = 500

// resolveRoute turns a route's plan into rules and assignments.
func (b *build) resolveRoute(r *routeResult) {
	count := 0
	for i := range r.plan.rules {
		count += len(r.plan.rules[i].matches)
	}
	r.rules = make([]model.Rule, 0, count)
	for i := range r.plan.rules {
		plan := &r.plan.rules[i]
		base := plan.base
		if plan.problem != "" {
			// Fail closed: requests of this rule must not fall through to a wider one.
			base = model.Rule{Origin: plan.base.Origin, Respond: &model.Respond{StatusCode: internalServerError}}
		}
		targets := b.resolveBackends(r, plan)
		mirrors := b.resolveMirrors(r, plan)
		switch {
		case plan.problem != "" || base.Redirect != nil:
		case len(targets) == 0 || len(targets) == 1 && targets[0].Assignment == "":
			base.Respond = &model.Respond{StatusCode: internalServerError}
		default:
			base.Forward, base.Mirrors, base.Lenders = &model.Forward{Targets: targets}, mirrors, plan.lenders(r.ref.Name.Namespace)
		}
		for _, m := range plan.matches {
			rule := base
			rule.Origin.Match, rule.Match = m.index, m.match
			r.rules = append(r.rules, rule)
		}
	}
	if count > 1 {
		r.rules = sorted(r.rules, ruleOrder)
	}
}

// lenders are the namespaces of a rule's backends that are not the route's own.
func (r *rulePlan) lenders(own string) (namespaces []string) {
	add := func(ref reference) {
		if ref.name.Namespace != own {
			namespaces = append(namespaces, ref.name.Namespace)
		}
	}
	for i := range r.backends {
		add(r.backends[i].ref)
	}
	for i := range r.mirrors {
		add(r.mirrors[i].ref)
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
}

// resolved is the route's condition ResolvedRefs: the first invalid reference, and
// the number of others.
func (r *routeResult) resolved() condition.Condition {
	if len(r.unresolved) == 0 {
		return condition.RouteResolved()
	}
	first := r.unresolved[0]
	if more := len(r.unresolved) - 1; more > 0 {
		first.Message += fmt.Sprintf(" (and %d more)", more)
	}
	return first
}

// clusterGroup is a group of backends that share one assignment.
type clusterGroup struct {
	plan     *backendPlan // the backend with filters that has the group alone; else nil
	protocol model.BackendProtocol
	policy   *model.ClusterPolicy
	timeout  time.Duration // of each try
	backends []model.WeightedBackend
	fallback []model.WeightedBackend
	weight   uint32
}

// resolveBackends are the targets of a rule. Backends without filters share a
// target if their settings allow it. The share of unusable backends comes last.
func (b *build) resolveBackends(r *routeResult, plan *rulePlan) []model.Target {
	var groups []*clusterGroup
	unusable := uint32(0)
	for i := range plan.backends {
		backend := &plan.backends[i]
		resolved, problem := b.resolve(r.ref, backend.ref)
		if problem != nil {
			r.unresolved = append(r.unresolved, *problem)
			unusable += backend.weight
			continue
		}
		r.uses(resolved.from)
		if plan.problem != "" {
			continue
		}
		resolved.backend.Weight = backend.weight
		groups = addToGroup(groups, backend, resolved)
	}
	// A group without weight gets no requests, and an assignment needs a weight.
	groups = slices.DeleteFunc(groups, func(g *clusterGroup) bool { return g.weight == 0 })
	for _, g := range groups {
		g.setFallback(groups)
	}
	targets := make([]model.Target, 0, len(groups)+1)
	for _, g := range groups {
		g.timeout = ptr.Deref(plan.base.BackendTimeout, 0)
		target := model.Target{Assignment: r.assignment(g), Weight: g.weight}
		if g.plan != nil {
			target.Request, target.Response = g.plan.request, g.plan.response
		}
		targets = append(targets, target)
	}
	if unusable > 0 {
		targets = append(targets, model.Target{Weight: unusable})
	}
	if len(targets) == 1 {
		targets[0].Weight = 1 // so that a changed weight within one assignment never changes the rule
	}
	return targets
}

// addToGroup adds a backend to the first group that it fits into, or to a new one.
// Two ports of one backend do not fit together, nor do an import and a Service of
// the same name: they may have endpoints in common, and Envoy would drop these
// from one of the two.
func addToGroup(groups []*clusterGroup, plan *backendPlan, r resolvedBackend) []*clusterGroup {
	if plan.hasFilters() {
		return append(groups, &clusterGroup{plan: plan, protocol: r.protocol, policy: r.policy, backends: []model.WeightedBackend{r.backend}, weight: plan.weight})
	}
	for _, g := range groups {
		if g.plan != nil || g.protocol != r.protocol || !fit(g.policy, r.policy) {
			continue
		}
		at := slices.IndexFunc(g.backends, func(o model.WeightedBackend) bool { return o.Backend.Name == r.backend.Backend.Name })
		if at >= 0 && (g.backends[at].Backend != r.backend.Backend || g.backends[at].Port != r.backend.Port) {
			continue
		}
		if at >= 0 {
			g.backends[at].Weight += plan.weight
		} else {
			g.add(r)
		}
		g.weight += plan.weight
		return groups
	}
	return append(groups, &clusterGroup{protocol: r.protocol, policy: r.policy, backends: []model.WeightedBackend{r.backend}, weight: plan.weight})
}

// fit says whether backends with these policies may be in one cluster. Their
// settings must be equal, except that a cluster may have a health check for only
// some of its backends.
func fit(x, y *model.ClusterPolicy) bool {
	a, b := ptr.Deref(x, model.ClusterPolicy{}), ptr.Deref(y, model.ClusterPolicy{})
	if a.HealthCheck == nil || b.HealthCheck == nil {
		a.HealthCheck, b.HealthCheck = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// add adds a backend to a group with others, which take over its share when it
// fails. In a group with a health check, backends without one are Unchecked.
func (g *clusterGroup) add(r resolvedBackend) {
	if g.policy.Check() == nil && r.policy.Check() != nil {
		g.policy = r.policy
		for i := range g.backends {
			g.backends[i].Unchecked = true
		}
	}
	r.backend.Unchecked = g.policy.Check() != nil && r.policy.Check() == nil
	g.backends = append(g.backends, r.backend)
}

// setFallback makes the backends of the rule's other groups the fallback of g,
// because Envoy moves no requests from one cluster to another. Groups of another
// protocol are left out: a cluster has one protocol. So are backends with the name
// of one of g's backends, which may be the same pods. A fallback backend is
// Unchecked if g has a health check: an assignment has only one health check.
func (g *clusterGroup) setFallback(groups []*clusterGroup) {
	for _, other := range groups {
		if other == g || other.protocol != g.protocol {
			continue
		}
		for _, b := range other.backends {
			named := func(o model.WeightedBackend) bool { return o.Backend.Name == b.Backend.Name }
			at := slices.IndexFunc(g.fallback, named)
			switch {
			case slices.ContainsFunc(g.backends, named):
			case at < 0:
				b.Unchecked = g.policy.Check() != nil
				g.fallback = append(g.fallback, b)
			case sameBackend(g.fallback[at], b):
				g.fallback[at].Weight += b.Weight
			}
		}
	}
}

// uses records the policy that acts on a backend.
func (r *routeResult) uses(policy fleet.ObjectRef) {
	if policy != (fleet.ObjectRef{}) && !slices.Contains(r.policies, policy) {
		r.policies = append(r.policies, policy)
	}
}

func (b *build) resolveMirrors(r *routeResult, plan *rulePlan) []model.Mirror {
	var mirrors []model.Mirror
	for _, mirror := range plan.mirrors {
		resolved, problem := b.resolve(r.ref, mirror.ref)
		if problem != nil {
			r.unresolved = append(r.unresolved, *problem)
			continue
		}
		r.uses(resolved.from)
		if plan.problem != "" || mirror.numerator == 0 {
			continue
		}
		resolved.backend.Weight = 1
		g := &clusterGroup{protocol: resolved.protocol, policy: resolved.policy, timeout: ptr.Deref(plan.base.BackendTimeout, 0),
			backends: []model.WeightedBackend{resolved.backend}, weight: 1}
		mirrors = append(mirrors, model.Mirror{Assignment: r.assignment(g), Numerator: mirror.numerator, Denominator: mirror.denominator})
	}
	return mirrors
}

// assignment adds the route's assignment for a group and returns its key. Groups
// with equal backends, weights, fallback and timeout share an assignment. Groups
// with equal backends but other weights, fallback or timeout have keys with an
// ordinal. Those of an earlier version of a route that the present one does not have
// have keys with its generation.
func (r *routeResult) assignment(g *clusterGroup) string {
	slices.SortFunc(g.backends, backendOrder)
	slices.SortFunc(g.fallback, backendOrder)
	if len(g.backends) == 1 && len(g.fallback) == 0 { // a single weight has no effect
		g.backends[0].Weight = 1
	}
	for _, taken := range r.taken {
		same := model.Assignment{Key: taken.Key, Route: r.ref, Backends: g.backends, Fallback: g.fallback, Protocol: g.protocol, Timeout: g.timeout, Policy: g.policy}
		if taken.Equal(same) {
			if !slices.ContainsFunc(r.assignments, func(a model.Assignment) bool { return a.Key == taken.Key }) {
				r.assignments = append(r.assignments, taken)
			}
			return taken.Key
		}
	}
	ordinal := 0
	for i := range r.assignments {
		old := &r.assignments[i]
		if !slices.EqualFunc(old.Backends, g.backends, sameBackend) {
			continue
		}
		if old.Timeout == g.timeout && slices.EqualFunc(old.Backends, g.backends, sameWeighted) && slices.EqualFunc(old.Fallback, g.fallback, sameWeighted) {
			return old.Key
		}
		ordinal++
	}
	key := assignmentKey(r.ref, g.protocol, g.backends)
	if r.earlier {
		key += "-g" + strconv.FormatInt(r.report.Ref.Generation, 10)
	}
	if ordinal > 0 {
		key += "-" + strconv.Itoa(ordinal)
	}
	r.assignments = append(r.assignments, model.Assignment{Key: key, Route: r.ref, Backends: g.backends, Fallback: g.fallback,
		Protocol: g.protocol, Timeout: g.timeout, Policy: g.policy})
	return key
}

func backendOrder(x, y model.WeightedBackend) int {
	return cmp.Or(x.Backend.Compare(y.Backend), cmp.Compare(x.Port, y.Port))
}

func sameBackend(x, y model.WeightedBackend) bool { return x.Backend == y.Backend && x.Port == y.Port }

func sameWeighted(x, y model.WeightedBackend) bool { return sameBackend(x, y) && x.Weight == y.Weight }

// maxKeyRoute is the length of the longest namespace/name that a key contains
// unabridged. The hash, the ordinal and two separators fit behind it within 200
// characters.
const (
	maxKeyRoute = 180
	hashBytes   = 5
)

// assignmentKey is the name of an Envoy cluster and of its load assignment, which
// travel apart. So another protocol has another key: endpoints that speak it are
// never in the cluster of the earlier one.
func assignmentKey(route fleet.RouteRef, protocol model.BackendProtocol, backends []model.WeightedBackend) string {
	text := make([]byte, 0, 256)
	if route.Kind != condition.HTTPRoute { // keys of HTTPRoutes never had a kind, and must stay the same
		text = append(append(text, route.Kind...), '\n')
	}
	for i := range backends {
		text = append(text, backends[i].Backend.Kind...)
		text = append(append(text, ' '), backends[i].Backend.Name.Namespace...)
		text = append(append(text, '/'), backends[i].Backend.Name.Name...)
		text = strconv.AppendInt(append(text, ' '), int64(backends[i].Port), 10)
		text = append(text, '\n')
	}
	if protocol != model.HTTP1 {
		text = append(append(text, protocol...), '\n')
	}
	name := route.Name.String()
	if len(name) > maxKeyRoute {
		mark := "-" + hashed([]byte(name))
		name = name[:maxKeyRoute-len(mark)] + mark
	}
	return name + "/" + hashed(text)
}

func hashed(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:hashBytes])
}

// resolvedBackend is a resolved backendRef.
type resolvedBackend struct {
	backend  model.WeightedBackend // without weight
	protocol model.BackendProtocol
	policy   *model.ClusterPolicy
	from     fleet.ObjectRef // the policy in force; zero: none
}

// resolve resolves a backendRef of a route, or returns the condition that says why
// it cannot. Whether the object exists is reported only if the route may refer to
// it.
func (b *build) resolve(route fleet.RouteRef, ref reference) (resolvedBackend, *condition.Condition) {
	backend, ok := ref.backend()
	if !ok {
		return resolvedBackend{}, new(condition.BackendInvalidKind(ref.group, ref.kind, ref.name.Name))
	}
	if !b.index.permitted(route.Kind, route.Name.Namespace, ref.group, ref.kind, ref.name) {
		return resolvedBackend{}, new(condition.BackendNotPermitted(backend, route.Kind, route.Name.Namespace))
	}
	if backend.Kind == fleet.Service {
		return b.resolveService(backend, ref.port)
	}
	return b.resolveImport(backend, ref.port)
}

// offeredBy are the clusters that export a port, sorted and never nil. Endpoints
// of other clusters are ignored, whatever they pushed to the hub.
func offeredBy(imported *v1alpha1.FleetService, port *v1alpha1.FleetServicePort) []fleet.ClusterName {
	clusters := []fleet.ClusterName{}
	for _, c := range imported.Spec.Clusters {
		if port.Clusters == nil || slices.Contains(port.Clusters, c.Name) {
			clusters = append(clusters, fleet.ClusterName(c.Name))
		}
	}
	slices.Sort(clusters)
	return clusters
}

func (b *build) resolveImport(backend fleet.Backend, port int32) (resolvedBackend, *condition.Condition) {
	found := b.index.imports[backend.Name]
	if found == nil {
		if b.index.serviceImports[backend.Name] {
			return resolvedBackend{}, new(condition.BackendNotOfFleet(backend.Name))
		}
		return resolvedBackend{}, new(condition.BackendNotFound(backend))
	}
	var offered []int32
	for i := range found.Spec.Ports {
		p := &found.Spec.Ports[i]
		if !isTCP(p.Protocol) {
			continue
		}
		offered = append(offered, p.Port)
		if port != 0 && p.Port != port || port == 0 && len(found.Spec.Ports) != 1 {
			continue
		}
		r := resolvedBackend{backend: model.WeightedBackend{Backend: backend, Port: p.Port, PortName: fleet.PortID(string(p.Protocol), p.Port)}}
		r.backend.Clusters = offeredBy(found, p)
		if policy := b.policies[backend.Name]; policy != nil {
			r.policy, r.from = policy.cluster, fleet.ObjectRef{Kind: condition.BackendPolicy, Name: policy.winner}
		}
		return r.withProtocol(ptr.Deref(p.AppProtocol, ""))
	}
	if port == 0 {
		return resolvedBackend{}, new(condition.BackendPortMissing(backend, offered))
	}
	return resolvedBackend{}, new(condition.BackendPortNotFound(backend, port, offered))
}

func (b *build) resolveService(backend fleet.Backend, port int32) (resolvedBackend, *condition.Condition) {
	found := b.index.services[backend.Name]
	if found == nil {
		return resolvedBackend{}, new(condition.BackendNotFound(backend))
	}
	if strings.HasPrefix(backend.Name.Namespace, v1alpha1.MemberNamespacePrefix) {
		return resolvedBackend{}, new(condition.BackendOfMembers(backend.Name, v1alpha1.MemberNamespacePrefix))
	}
	if found.Spec.Type == corev1.ServiceTypeExternalName {
		return resolvedBackend{}, new(condition.BackendExternalName(backend.Name))
	}
	var offered []int32
	for i := range found.Spec.Ports {
		p := &found.Spec.Ports[i]
		if !isTCP(p.Protocol) {
			continue
		}
		if offered = append(offered, p.Port); p.Port == port {
			r := resolvedBackend{backend: model.WeightedBackend{Backend: backend, Port: p.Port, PortName: p.Name}}
			return r.withProtocol(ptr.Deref(p.AppProtocol, ""))
		}
	}
	if port == 0 {
		return resolvedBackend{}, new(condition.BackendPortMissing(backend, offered))
	}
	return resolvedBackend{}, new(condition.BackendPortNotFound(backend, port, offered))
}

// appProtocols are the protocols that an appProtocol may name, in lower case: IANA's
// names of HTTP with their aliases, those of Kubernetes (GEP-1911), and what users of
// other gateways write. "tcp" says nothing about HTTP, as no name at all.
// (https://www.iana.org/assignments/service-names-port-numbers)
var appProtocols = map[string]model.BackendProtocol{
	"": model.HTTP1, "tcp": model.HTTP1,
	"http": model.HTTP1, "www": model.HTTP1, "www-http": model.HTTP1, "http-alt": model.HTTP1, "grpc-web": model.HTTP1,
	"kubernetes.io/ws": model.HTTP1, "ws": model.HTTP1, "websocket": model.HTTP1,
	"kubernetes.io/h2c": model.H2C, "h2c": model.H2C, "http2": model.H2C, "grpc": model.H2C,
}

// withProtocol sets the protocol of an appProtocol. Case does not matter (RFC 6335
// section 5.1). Edges use HTTP without TLS to backends, and allow WebSocket upgrades
// to all of them.
func (r resolvedBackend) withProtocol(appProtocol string) (resolvedBackend, *condition.Condition) {
	protocol, known := appProtocols[strings.ToLower(appProtocol)]
	if !known {
		return r, new(condition.BackendUnsupportedProtocol(r.backend.Backend, r.backend.Port, appProtocol))
	}
	r.protocol = protocol
	return r, nil
}

func isTCP(protocol corev1.Protocol) bool { return protocol == "" || protocol == corev1.ProtocolTCP }
