package gateway

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// ConditionTypes are the types of all conditions that Report may return.
func ConditionTypes() []string {
	return []string{
		string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.ListenerConditionResolvedRefs),
		string(gatewayv1.ListenerConditionConflicted), string(gatewayv1.ListenerConditionOverlappingTLSConfig),
		string(gatewayv1.RouteConditionPartiallyInvalid), string(gatewayv1.GatewayClassConditionStatusSupportedVersion), condition.Shadowed, condition.Shadows, condition.NarrowHostname, condition.RefusedInPools,
	}
}

// objectReport is the report on one object. The report on a Gateway of ours also
// depends on the progress of edges; Report completes it.
type objectReport struct {
	condition.Report
	gateway *gatewayState
}

// Report returns the conditions of every object whose status Crossway writes, by
// kind, then name. The progress of edges does not change the Model, so only Report
// needs it, as it does the refusals of routes by edges. Reports share memory with
// the Result: do not change them.
func Report(result Result, progress Progress, refusals ...Refusal) []condition.Report {
	reports := make([]condition.Report, len(result.reports))
	for i, r := range result.reports {
		if reports[i] = r.Report; r.gateway != nil {
			programming, followed := progress[r.gateway.name]
			reports[i] = r.gateway.report(r.Ref, programming, followed)
		}
	}
	result.reportRefusals(reports, refusals)
	return reports
}

// reportGateway prepares the report on a Gateway.
func (b *build) reportGateway(p *gatewayState) {
	ref := condition.Ref{Kind: condition.Gateway, Name: p.name, Generation: p.object.Generation}
	p.accepted = p.evaluateAccepted()
	p.pools = b.poolsOf(p)
	p.unprogrammed = b.unprogrammed(p)
	b.reports = append(b.reports, &objectReport{Report: condition.Report{Ref: ref}, gateway: p})
}

// report is the report on a Gateway and its listeners.
func (p *gatewayState) report(ref condition.Ref, progress Programming, followed bool) condition.Report {
	programmed := p.programmed(progress)
	report := condition.Report{Ref: ref, Conditions: []condition.Condition{p.accepted, programmed}}
	if p.refusal == nil {
		report.Addresses = p.statusAddresses(progress, followed)
	}
	for _, l := range p.listeners {
		report.Listeners = append(report.Listeners, l.report(p, programmed))
	}
	return report
}

// statusAddresses are the addresses of pools that have, or once had, a connected
// edge. A pool that lost the hub keeps its address, because its edges may still
// serve.
func (p *gatewayState) statusAddresses(progress Programming, followed bool) []string {
	var addresses []string
	for _, a := range p.addresses {
		before := slices.ContainsFunc(p.object.Status.Addresses, func(s gatewayv1.GatewayStatusAddress) bool { return s.Value == a.Address.String() })
		if before || followed && !slices.Contains(progress.Unserved, a.Pool) {
			addresses = append(addresses, a.Address.String())
		}
	}
	return addresses
}

// reportMissingClass reports on a Gateway whose class does not exist. Only a
// Gateway that was ours is reported on: it has an address in an EdgePool.
func (b *build) reportMissingClass(gateway *gatewayv1.Gateway) {
	class, name := string(gateway.Spec.GatewayClassName), fleet.ObjectName{Namespace: gateway.Namespace, Name: gateway.Name}
	if slices.ContainsFunc(b.in.GatewayClasses, func(c gatewayv1.GatewayClass) bool { return c.Name == class }) {
		return // the class is now another controller's
	}
	for i := range b.in.Pools {
		if slices.ContainsFunc(b.in.Pools[i].Status.Allocations, func(a v1alpha1.AddressAllocation) bool { return allocationOwner(a) == name }) {
			b.reports = append(b.reports, &objectReport{Report: condition.Report{
				Ref:        condition.Ref{Kind: condition.Gateway, Name: name, Generation: gateway.Generation},
				Conditions: []condition.Condition{condition.GatewayClassMissing(class), condition.GatewayNotProgrammed()},
			}})
			return
		}
	}
}

func (p *gatewayState) evaluateAccepted() condition.Condition {
	if p.refusal != nil {
		return *p.refusal
	}
	invalid := names(p.listeners, (*listener).invalid)
	if len(invalid) > 0 {
		return condition.GatewayListenersNotValid(invalid, names(p.listeners, func(l *listener) bool { return !l.invalid() }))
	}
	var notes []string
	if allowed := p.object.Spec.AllowedListeners; allowed != nil && allowed.Namespaces != nil &&
		allowed.Namespaces.From != nil && *allowed.Namespaces.From != gatewayv1.NamespacesFromNone {
		notes = append(notes, "ListenerSets are not supported, so spec.allowedListeners has no effect")
	}
	if i := p.object.Spec.Infrastructure; i != nil && len(i.Labels)+len(i.Annotations) > 0 {
		notes = append(notes, "nothing is made for this Gateway alone, so labels and annotations of spec.infrastructure have no effect")
	}
	return condition.GatewayAccepted(notes...)
}

// invalid says that the listener itself is invalid, whatever it refers to.
func (l *listener) invalid() bool { return l.unaccepted != nil || l.conflict != nil }

// unprogrammed is the condition of a Gateway that is not programmed whatever the
// progress of edges, or nil.
func (b *build) unprogrammed(p *gatewayState) *condition.Condition {
	if p.accepted.Status != "True" {
		return new(condition.GatewayNotProgrammed())
	}
	if len(p.addresses) == 0 {
		return new(condition.GatewayNoAddress(b.whyNoAddress(p)))
	}
	return nil
}

// programmed is the Gateway's condition Programmed.
func (p *gatewayState) programmed(progress Programming) condition.Condition {
	switch {
	case p.unprogrammed != nil:
		return *p.unprogrammed
	case progress.Connected == 0 && len(progress.Refused) > 0:
		return condition.GatewayRefusedByEdge(progress.Refused, progress.Message)
	case progress.Connected == 0:
		return condition.GatewayNoEdge(p.pools)
	case progress.Generation != p.object.Generation:
		return condition.GatewayWaitsForEdges(0, progress.Connected)
	case progress.Acked < progress.Connected:
		return condition.GatewayWaitsForEdges(progress.Acked, progress.Connected)
	default:
		unserved := progress.Unserved
		if progress.Early {
			unserved = nil
		}
		return condition.GatewayProgrammed(progress.Connected, unserved, p.poolsWithoutAddress(), progress.Refused)
	}
}

// poolsWithoutAddress are the Gateway's EdgePools that had no free address for it.
func (p *gatewayState) poolsWithoutAddress() []string {
	return slices.DeleteFunc(slices.Clone(p.pools), func(pool string) bool {
		return slices.ContainsFunc(p.addresses, func(a model.Address) bool { return a.Pool == pool })
	})
}

// poolsOf are the EdgePools that serve a Gateway, sorted.
func (b *build) poolsOf(p *gatewayState) []string {
	var pools []string
	for i := range b.in.Pools {
		if servedBy(p.parameters, &b.in.Pools[i]) {
			pools = append(pools, b.in.Pools[i].Name)
		}
	}
	slices.Sort(pools)
	return pools
}

func (b *build) whyNoAddress(p *gatewayState) string {
	if len(p.pools) == 0 {
		place := "any region"
		if p.parameters.Region != "" {
			place = fmt.Sprintf("region %q", p.parameters.Region)
		}
		return fmt.Sprintf("there is no EdgePool of exposure %s in %s; create one, or change the GatewayParameters", p.parameters.Exposure, place)
	}
	taken := takenAddresses(b.in.Pools)
	for i := range b.in.Pools {
		if pool := &b.in.Pools[i]; servedBy(p.parameters, pool) && firstFree(pool, taken).IsValid() {
			return "an address is being allocated"
		}
	}
	return fmt.Sprintf("EdgePools %q have no free address; add a block to spec.addresses of one", p.pools)
}

// report is the report on one listener.
func (l *listener) report(p *gatewayState, programmed condition.Condition) condition.ListenerReport {
	report := condition.ListenerReport{Name: string(l.spec.Name), SupportedKinds: l.kinds, AttachedRoutes: l.attached}
	accepted, conflicted := condition.ListenerAccepted(), condition.ListenerNoConflicts()
	if l.conflict != nil {
		accepted, conflicted = condition.ListenerNotAccepted(*l.conflict), *l.conflict
	}
	if l.unaccepted != nil {
		accepted = *l.unaccepted
	}
	resolved := condition.ListenerResolved()
	if l.unresolved != nil {
		resolved = *l.unresolved
	}
	served := condition.ListenerNotProgrammed()
	if p.refusal == nil && !l.broken() && len(l.kinds) > 0 {
		served = condition.ListenerProgrammed(programmed)
	}
	report.Conditions = []condition.Condition{accepted, conflicted}
	if len(l.overlaps) > 0 {
		report.Conditions = append(report.Conditions, condition.ListenerOverlappingHostnames(l.overlaps))
	}
	report.Conditions = append(report.Conditions, served, resolved)
	return report
}
