package gateway

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
)

// ConditionTypes are the types of all conditions that Build may report.
func ConditionTypes() []string {
	return []string{
		string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.ListenerConditionResolvedRefs),
		string(gatewayv1.ListenerConditionConflicted), string(gatewayv1.ListenerConditionOverlappingTLSConfig),
		string(gatewayv1.RouteConditionPartiallyInvalid), string(gatewayv1.GatewayClassConditionStatusSupportedVersion), condition.Shadowed,
	}
}

// reportGateway says how a Gateway and its listeners are.
func (b *build) reportGateway(p *parent) {
	ref := condition.Ref{Kind: condition.Gateway, Name: p.name, Generation: p.object.Generation}
	accepted := p.accepted()
	programmed := b.programmed(p, ref)
	report := condition.Report{Ref: ref, Conditions: []condition.Condition{accepted, programmed}}
	if p.refusal == nil {
		for _, address := range b.addressesOf(p) {
			report.Addresses = append(report.Addresses, address.Address.String())
		}
	}
	for _, l := range p.listeners {
		report.Listeners = append(report.Listeners, l.report(p, programmed))
	}
	b.reports = append(b.reports, report)
}

func (p *parent) accepted() condition.Condition {
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

// invalid says that the listener itself is, whatever it refers to.
func (l *listener) invalid() bool { return l.unaccepted != nil || l.conflict != nil }

// programmed says how far the edges in the Gateway's places are.
func (b *build) programmed(p *parent, ref condition.Ref) condition.Condition {
	if p.accepted().Status != "True" {
		return condition.GatewayNotProgrammed()
	}
	if words, refused := b.index.nacks[ref]; refused {
		return condition.GatewayRefusedByEdge(words)
	}
	if len(b.addressesOf(p)) == 0 {
		return condition.GatewayNoAddress(b.whyNoAddress(p))
	}
	progress := b.in.Programmed[p.name]
	switch {
	case progress.Connected == 0:
		return condition.GatewayNoEdge(b.poolsOf(p))
	case progress.Generation != p.object.Generation:
		return condition.GatewayWaitsForEdges(0, progress.Connected)
	case progress.Acked < progress.Connected:
		return condition.GatewayWaitsForEdges(progress.Acked, progress.Connected)
	default:
		return condition.GatewayProgrammed(progress.Connected)
	}
}

// poolsOf names the EdgePools that a Gateway lives in.
func (b *build) poolsOf(p *parent) []string {
	var pools []string
	for i := range b.in.Pools {
		if livesIn(p.parameters, &b.in.Pools[i]) {
			pools = append(pools, b.in.Pools[i].Name)
		}
	}
	slices.Sort(pools)
	return pools
}

func (b *build) whyNoAddress(p *parent) string {
	pools := b.poolsOf(p)
	if len(pools) == 0 {
		place := "any region"
		if p.parameters.Region != "" {
			place = fmt.Sprintf("region %q", p.parameters.Region)
		}
		return fmt.Sprintf("there is no EdgePool of exposure %s in %s; create one, or change the GatewayParameters", p.parameters.Exposure, place)
	}
	taken := takenAddresses(b.in.Pools)
	for i := range b.in.Pools {
		if pool := &b.in.Pools[i]; livesIn(p.parameters, pool) && firstFree(pool, taken).IsValid() {
			return "an address is being allocated"
		}
	}
	return fmt.Sprintf("EdgePools %q have no free address; add a block to spec.addresses of one", pools)
}

// report says how one listener is.
func (l *listener) report(p *parent, programmed condition.Condition) condition.ListenerReport {
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
