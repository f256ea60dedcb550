package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// policy is the BackendPolicy in force for one import.
type policy struct {
	winner  fleet.ObjectName
	imports model.ImportPolicy
	cluster *model.ClusterPolicy // nil: the Envoy cluster has default settings
}

// evaluatePolicies finds the policy in force for each import, the oldest of
// several (GEP-713), and prepares the reports on all policies. It runs before
// routes are resolved.
func (b *build) evaluatePolicies() {
	b.policies = make(map[fleet.ServiceName]*policy, len(b.in.Policies))
	for _, given := range sortedByAge(b.in.Policies) {
		report := &objectReport{Report: condition.Report{Ref: condition.Ref{
			Kind: condition.BackendPolicy, Name: fleet.ObjectName{Namespace: given.Namespace, Name: given.Name}, Generation: given.Generation,
		}}}
		for _, target := range given.Spec.TargetRefs {
			name := fleet.ObjectName{Namespace: given.Namespace, Name: string(target.Name)}
			report.Parents = append(report.Parents, condition.ParentReport{
				ParentRef:  condition.AncestorRef(string(target.Group), string(target.Kind), name),
				Conditions: []condition.Condition{b.evaluateTarget(given, string(target.Group), string(target.Kind), name)},
			})
		}
		b.policyReports = append(b.policyReports, report)
	}
	for _, p := range b.policies {
		b.model.Imports = append(b.model.Imports, p.imports)
	}
	slices.SortFunc(b.model.Imports, func(a, b model.ImportPolicy) int { return a.Backend.Compare(b.Backend) })
}

// reportPolicies reports on policies once all routes are attached: the ancestors
// of a policy may depend on which routes use it (routeResult.policies) and on
// the Gateways of these routes. The ancestors of a BackendPolicy are its targets
// and depend on no route.
func (b *build) reportPolicies() { b.reports = append(b.reports, b.policyReports...) }

// evaluateTarget puts a policy in force for one target, or not, and returns the
// condition that says so.
func (b *build) evaluateTarget(given *v1alpha1.BackendPolicy, group, kind string, target fleet.ObjectName) condition.Condition {
	if group != mcsv1beta1.GroupName || kind != string(fleet.Import) {
		return condition.PolicyInvalid(fmt.Sprintf("targetRefs names %s %q of group %q; use ServiceImport of group %s", kind, target.Name, group, mcsv1beta1.GroupName))
	}
	next, problem := policyFor(given, target)
	if problem != "" {
		return condition.PolicyInvalid(problem)
	}
	if b.index.imports[target] == nil {
		return condition.PolicyTargetNotFound(target)
	}
	if old := b.policies[target]; old != nil {
		return condition.PolicyConflicted(target, old.winner)
	}
	b.policies[target] = next
	return condition.PolicyAccepted()
}

func policyFor(given *v1alpha1.BackendPolicy, target fleet.ObjectName) (*policy, string) {
	p := &policy{
		winner:  fleet.ObjectName{Namespace: given.Namespace, Name: given.Name},
		imports: model.ImportPolicy{Backend: fleet.Backend{Kind: fleet.Import, Name: target}, Mode: model.Waterfall},
	}
	p.imports.Policy, p.imports.Generation = p.winner, given.Generation
	if capacity := given.Spec.Capacity; capacity != nil {
		if capacity.MaxRatePerEndpoint < 1 {
			return nil, fmt.Sprintf("capacity.maxRatePerEndpoint %d is not a rate; use at least 1 request per second", capacity.MaxRatePerEndpoint)
		}
		p.imports.Rate = float64(capacity.MaxRatePerEndpoint)
	}
	switch mode := given.Spec.Distribution.Mode; mode {
	case "", v1alpha1.Waterfall:
	case v1alpha1.Spray:
		p.imports.Mode = model.Spray
	default:
		return nil, fmt.Sprintf("distribution.mode %q is not supported; use Waterfall or Spray", mode)
	}
	cluster, problem := clusterPolicy(given)
	if cluster != (model.ClusterPolicy{}) {
		p.cluster = &cluster
	}
	return p, problem
}

// clusterPolicy reads the settings of an Envoy cluster.
func clusterPolicy(given *v1alpha1.BackendPolicy) (cluster model.ClusterPolicy, problem string) {
	if detection := given.Spec.OutlierDetection; detection != nil {
		if cluster.GatewayErrors = detection.ConsecutiveGatewayErrors; cluster.GatewayErrors < 1 {
			return model.ClusterPolicy{}, fmt.Sprintf("outlierDetection.consecutiveGatewayErrors %d is not a number of answers; use at least 1", cluster.GatewayErrors)
		}
	}
	cluster.HealthCheck, problem = healthCheck(given.Spec.HealthCheck)
	return cluster, problem
}

func healthCheck(given *v1alpha1.HealthCheck) (*model.HealthCheck, string) {
	if given == nil {
		return nil, ""
	}
	check := &model.HealthCheck{}
	for _, field := range []struct {
		name                string
		given, defaultValue gatewayv1.Duration
		minimum             time.Duration
		to                  *time.Duration
	}{
		{"interval", given.Interval, "5s", time.Second, &check.Interval},
		{"timeout", given.Timeout, "1s", 10 * time.Millisecond, &check.Timeout},
	} {
		parsed, ok := duration(cmp.Or(field.given, field.defaultValue), field.minimum)
		if !ok {
			return nil, fmt.Sprintf("healthCheck.%s %q is not a duration of at least %s", field.name, shortened(string(field.given)), field.minimum)
		}
		*field.to = parsed
	}
	if check.Timeout > check.Interval {
		return nil, fmt.Sprintf("healthCheck.timeout %s is longer than interval %s; make it shorter", check.Timeout, check.Interval)
	}
	if given.HTTP == nil {
		return check, ""
	}
	if check.Path = cmp.Or(given.HTTP.Path, "/"); check.Path[0] != '/' || !isVisible(check.Path) {
		return nil, fmt.Sprintf("healthCheck.http.path %q does not begin with /, or has other characters than visible ASCII", shortened(check.Path))
	}
	return check, ""
}
