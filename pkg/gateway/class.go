package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// supportedVersion is the prefix of the supported Gateway API releases.
const supportedVersion = "v1.6."

// supportedFeatures are the Gateway API features that GatewayClasses report, by name.
func supportedFeatures() []string {
	claimed := []features.FeatureName{
		features.SupportGateway,
		features.SupportGatewayAddressEmpty,
		features.SupportGatewayHTTPListenerIsolation,
		features.SupportGatewayHTTPSListenerDetectMisdirectedRequests,
		features.SupportGatewayPort8080,
		features.SupportHTTPRoute,
		features.SupportHTTPRoute303RedirectStatusCode,
		features.SupportHTTPRoute307RedirectStatusCode,
		features.SupportHTTPRoute308RedirectStatusCode,
		features.SupportHTTPRouteBackendProtocolH2C,
		features.SupportHTTPRouteBackendProtocolWebSocket,
		features.SupportHTTPRouteBackendRequestHeaderModification,
		features.SupportHTTPRouteBackendTimeout,
		features.SupportHTTPRouteDestinationPortMatching,
		features.SupportHTTPRouteHostRewrite,
		features.SupportHTTPRouteMethodMatching,
		features.SupportHTTPRouteNamedRouteRule,
		features.SupportHTTPRouteParentRefPort,
		features.SupportHTTPRoutePathRedirect,
		features.SupportHTTPRoutePathRewrite,
		features.SupportHTTPRoutePortRedirect,
		features.SupportHTTPRouteQueryParamMatching,
		features.SupportHTTPRouteRequestMirror,
		features.SupportHTTPRouteRequestMultipleMirrors,
		features.SupportHTTPRouteRequestPercentageMirror,
		features.SupportHTTPRouteRequestTimeout,
		features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRouteSchemeRedirect,
		features.SupportReferenceGrant,
	}
	names := make([]string, len(claimed))
	for i, name := range claimed {
		names[i] = string(name)
	}
	slices.Sort(names)
	return names
}

func (b *build) reportClasses() {
	for _, class := range b.index.classes {
		accepted := condition.ClassAccepted()
		if _, problem := b.classParameters(class); problem != "" {
			accepted = condition.ClassInvalidParameters(problem)
		}
		report := &objectReport{Report: condition.Report{
			Ref:        condition.Ref{Kind: condition.GatewayClass, Name: fleet.ObjectName{Name: class.Name}, Generation: class.Generation},
			Conditions: []condition.Condition{accepted},
			Features:   supportedFeatures(),
		}}
		switch installed := b.in.CRDVersion; {
		case installed == "":
		case strings.HasPrefix(installed, supportedVersion):
			report.Conditions = append(report.Conditions, condition.ClassSupportedVersion(installed))
		default:
			report.Conditions = append(report.Conditions, condition.ClassUnsupportedVersion(installed, supportedVersion+"x"))
		}
		b.reports = append(b.reports, report)
	}
}

// classParameters are the parameters of a class, or the problem with them.
func (b *build) classParameters(class *gatewayv1.GatewayClass) (v1alpha1.GatewayParametersSpec, string) {
	ref := class.Spec.ParametersRef
	if ref == nil {
		return v1alpha1.GatewayParametersSpec{Scope: v1alpha1.Global, Exposure: v1alpha1.External}, ""
	}
	if ref.Namespace == nil {
		return v1alpha1.GatewayParametersSpec{}, fmt.Sprintf("spec.parametersRef of GatewayClass %q needs a namespace", class.Name)
	}
	return b.parametersAt(string(ref.Group), string(ref.Kind), fleet.ObjectName{Namespace: string(*ref.Namespace), Name: ref.Name})
}

// gatewayParameters are the parameters that a Gateway names, or else its class's;
// or the problem with them.
func (b *build) gatewayParameters(gateway *gatewayv1.Gateway, class *gatewayv1.GatewayClass) (v1alpha1.GatewayParametersSpec, string) {
	parameters, problem := b.classParameters(class)
	if problem != "" {
		return parameters, fmt.Sprintf("GatewayClass %q is not accepted: %s", class.Name, problem)
	}
	if gateway.Spec.Infrastructure == nil || gateway.Spec.Infrastructure.ParametersRef == nil {
		return parameters, ""
	}
	ref := gateway.Spec.Infrastructure.ParametersRef
	return b.parametersAt(string(ref.Group), string(ref.Kind), fleet.ObjectName{Namespace: gateway.Namespace, Name: ref.Name})
}

func (b *build) parametersAt(group, kind string, name fleet.ObjectName) (v1alpha1.GatewayParametersSpec, string) {
	if group != v1alpha1.GroupVersion.Group || kind != "GatewayParameters" {
		return v1alpha1.GatewayParametersSpec{}, fmt.Sprintf("parametersRef names a %s of group %q; use GatewayParameters of group %s", kind, group, v1alpha1.GroupVersion.Group)
	}
	found := b.index.parameters[name]
	if found == nil {
		return v1alpha1.GatewayParametersSpec{}, fmt.Sprintf("GatewayParameters %q does not exist; create it, or correct parametersRef", name)
	}
	spec := found.Spec
	spec.Scope = cmp.Or(spec.Scope, v1alpha1.Global)
	spec.Exposure = cmp.Or(spec.Exposure, v1alpha1.External)
	if (spec.Scope == v1alpha1.Regional) != (spec.Region != "") {
		return spec, fmt.Sprintf("GatewayParameters %q: scope Regional needs a region, and scope Global has none", name)
	}
	return spec, ""
}

// clientSettings are what parameters say of clients, or nothing. Values that the API
// server would refuse count as the default.
func clientSettings(c *v1alpha1.ClientSettings) model.ClientSettings {
	if c == nil {
		return model.ClientSettings{}
	}
	settings := model.ClientSettings{
		TrustedHops: uint32(max(c.TrustedHops, 0)), ProxyProtocol: c.ProxyProtocol,
		RefuseHTTP10:   c.HTTP10.Action == "Refuse",
		Underscores:    oneOf(c.Headers.Underscores, model.DropUnderscores, model.RefuseUnderscores),
		MaxHeaderKiB:   uint32(min(max(c.Headers.MaxKiB, 0), 96)),
		MaxHeaders:     uint32(min(max(c.Headers.MaxCount, 0), 1000)),
		OwnRequestIDs:  c.Headers.RequestID == "Replace",
		HideHost:       c.Headers.ForwardedHost == "Never",
		EscapedSlashes: oneOf(c.Paths.EscapedSlashes, model.RedirectEscapedSlashes, model.UnescapeSlashes, model.RefuseEscapedSlashes),
		MergeSlashes:   c.Paths.DoubleSlashes == "Merge",
	}
	if c.IdleTimeout != nil {
		settings.IdleTimeout = c.IdleTimeout.Duration
	}
	if validPreciseHostname(c.HTTP10.DefaultHost) {
		settings.HTTP10Host = c.HTTP10.DefaultHost
	}
	return settings
}

// oneOf is the value of a setting if it is one of those given, and else its default,
// which is empty.
func oneOf[T ~string](value string, values ...T) T {
	if slices.Contains(values, T(value)) {
		return T(value)
	}
	return ""
}

// budgetsOf are the budgets of a Gateway: its class's, lowered by its own.
func (b *build) budgetsOf(gateway *gatewayv1.Gateway, class *gatewayv1.GatewayClass) budgets {
	parameters, _ := b.classParameters(class)
	limits := defaultBudgets().with(&parameters.Budgets)
	if own, problem := b.gatewayParameters(gateway, class); problem == "" {
		limits = limits.lower(limits.with(&own.Budgets))
	}
	return limits
}

// servedBy says whether the edges of a pool serve Gateways with these parameters.
func servedBy(parameters v1alpha1.GatewayParametersSpec, pool *v1alpha1.EdgePool) bool {
	return parameters.Exposure == cmp.Or(pool.Spec.Exposure, v1alpha1.External) &&
		(parameters.Scope == v1alpha1.Global || parameters.Region == pool.Spec.Region)
}
