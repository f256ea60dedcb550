package gateway

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

// gatewayState is a Gateway of ours during one Build.
type gatewayState struct {
	object     *gatewayv1.Gateway
	name       fleet.ObjectName
	parameters v1alpha1.GatewayParametersSpec
	refusal    *condition.Condition            // Accepted=False for the whole Gateway, which is not served; nil: accepted
	addresses  []model.Address                 // allocated to it, by pool
	listeners  []*listener                     // in spec order
	owners     map[uint16]map[string]*listener // of the hostnames of each port
	budgets    budgets

	// The parts of its report that do not depend on the progress of edges.
	accepted     condition.Condition
	unprogrammed *condition.Condition // Programmed=False whatever the progress; nil: the progress decides
	pools        []string             // EdgePools that serve it, sorted
}

// listener is a Gateway API listener during one Build.
type listener struct {
	spec     *gatewayv1.Listener
	port     uint16
	protocol model.Protocol // empty: not supported
	host     string         // as in the Model; empty: not a hostname
	kinds    []string       // route kinds that may attach
	from     gatewayv1.FromNamespaces
	selector labels.Selector
	secrets  []string // usable certificates

	unaccepted *condition.Condition // Accepted=False
	unresolved *condition.Condition // ResolvedRefs=False
	conflict   *condition.Condition // Conflicted=True
	overlaps   []string             // listeners with overlapping hostnames, HTTPS

	attachments []attachment
	attached    int32  // number of accepted routes
	lastCounted *route // so that count counts a route once
}

// broken says that the listener is not served.
func (l *listener) broken() bool {
	return l.unaccepted != nil || l.conflict != nil || l.protocol == model.HTTPS && len(l.secrets) == 0
}

// ownsHostname says that the listener takes part in conflicts about its hostname
// and port, broken or not.
func (l *listener) ownsHostname() bool { return l.protocol != "" && l.host != "" && l.port != 0 }

func (b *build) readGateway(gateway *gatewayv1.Gateway) {
	class := b.index.classes[string(gateway.Spec.GatewayClassName)]
	if class == nil {
		b.reportMissingClass(gateway)
		return
	}
	p := &gatewayState{object: gateway, name: fleet.ObjectName{Namespace: gateway.Namespace, Name: gateway.Name}}
	b.parents[p.name] = p
	p.refusal = b.evaluateGateway(p, class)
	p.budgets = b.budgetsOf(gateway, class)
	p.addresses = b.addressesOf(p)
	frontendTLS := hasFrontendValidation(gateway)
	for i := range gateway.Spec.Listeners {
		p.listeners = append(p.listeners, b.readListener(gateway, &gateway.Spec.Listeners[i], frontendTLS))
	}
	findConflicts(p.listeners)
	byPort := map[uint16][]*listener{}
	for _, l := range p.listeners {
		if l.ownsHostname() {
			byPort[l.port] = append(byPort[l.port], l)
		}
	}
	p.owners = make(map[uint16]map[string]*listener, len(byPort))
	for port, listeners := range byPort {
		p.owners[port] = ownersOf(listeners)
	}
}

// evaluateGateway is the condition Accepted=False of a Gateway that is not served
// as a whole, or nil.
func (b *build) evaluateGateway(p *gatewayState, class *gatewayv1.GatewayClass) *condition.Condition {
	spec := &p.object.Spec
	var problem string
	if p.parameters, problem = b.gatewayParameters(p.object, class); problem != "" {
		return new(condition.GatewayInvalidParameters(problem))
	}
	for _, address := range spec.Addresses {
		kind := gatewayv1.IPAddressType
		if address.Type != nil {
			kind = *address.Type
		}
		if kind != gatewayv1.IPAddressType || address.Value != "" {
			return new(condition.GatewayUnsupportedAddress(string(kind), address.Value))
		}
	}
	if spec.TLS != nil && spec.TLS.Backend != nil {
		return new(condition.GatewayUnsupported("spec.tls.backend"))
	}
	if spec.DefaultScope != "" && spec.DefaultScope != gatewayv1.GatewayDefaultScopeNone {
		return new(condition.GatewayUnsupported("spec.defaultScope"))
	}
	return nil
}

// hasFrontendValidation says whether the Gateway asks for client certificates,
// which are not supported. Its HTTPS listeners are then not served, because
// serving them without client certificates would be unsafe.
func hasFrontendValidation(gateway *gatewayv1.Gateway) bool {
	return gateway.Spec.TLS != nil && gateway.Spec.TLS.Frontend != nil
}

func (b *build) readListener(gateway *gatewayv1.Gateway, spec *gatewayv1.Listener, frontendTLS bool) *listener {
	l := &listener{spec: spec, host: anyHost}
	if spec.Port >= 1 && spec.Port <= 65535 {
		l.port = uint16(spec.Port)
	}
	if spec.Hostname != nil && *spec.Hostname != "" {
		if l.host = strings.ToLower(string(*spec.Hostname)); !validHostname(l.host) {
			l.host = ""
		}
	}
	switch spec.Protocol {
	case gatewayv1.HTTPProtocolType:
		l.protocol = model.HTTP
	case gatewayv1.HTTPSProtocolType:
		l.protocol = model.HTTPS
	default:
		l.unaccepted = new(condition.ListenerUnsupportedProtocol(string(spec.Protocol)))
		return l
	}
	if problem := l.problem(frontendTLS); problem != "" {
		l.unaccepted = new(condition.ListenerUnsupportedValue(problem))
	}
	l.readAllowed(spec.AllowedRoutes)
	if l.protocol == model.HTTPS && spec.TLS != nil {
		b.readCertificates(gateway, l)
	}
	return l
}

// problem says which value of a listener is not supported, or "".
func (l *listener) problem(frontendTLS bool) string {
	tls := l.spec.TLS
	switch {
	case l.port == 0:
		return fmt.Sprintf("port %d is not within 1 and 65535", l.spec.Port)
	case l.host == "":
		return fmt.Sprintf("hostname %q is not one; use a DNS name like shop.example.com or *.example.com", shortened(string(*l.spec.Hostname)))
	case l.protocol == model.HTTP && tls != nil:
		return "protocol HTTP has no tls; remove it, or use HTTPS"
	case l.protocol == model.HTTP:
		return ""
	case tls == nil:
		return "protocol HTTPS needs tls.certificateRefs"
	case tls.Mode != nil && *tls.Mode != "" && *tls.Mode != gatewayv1.TLSModeTerminate:
		return fmt.Sprintf("tls.mode %s is not supported for protocol HTTPS; use Terminate", *tls.Mode)
	case len(tls.Options) > 0:
		return "tls.options are not supported; remove them"
	case frontendTLS:
		return "spec.tls.frontend asks for client certificates, which is not supported; remove it"
	default:
		return ""
	}
}

func (l *listener) readAllowed(allowed *gatewayv1.AllowedRoutes) {
	l.kinds, l.from = kindsFor(l.protocol), gatewayv1.NamespacesFromSame
	if allowed == nil {
		return
	}
	if namespaces := allowed.Namespaces; namespaces != nil && namespaces.From != nil {
		l.from = *namespaces.From
		selector, err := metav1.LabelSelectorAsSelector(namespaces.Selector)
		switch {
		case l.from != gatewayv1.NamespacesFromSelector:
		case err != nil:
			l.unaccepted = new(condition.ListenerUnsupportedValue(fmt.Sprintf("allowedRoutes.namespaces.selector is not valid: %v", err)))
		case namespaces.Selector == nil:
			l.unaccepted = new(condition.ListenerUnsupportedValue("allowedRoutes.namespaces has from: Selector and no selector; add one, or use All or Same"))
		}
		l.selector = selector
	}
	if len(allowed.Kinds) == 0 {
		return
	}
	supported := l.kinds
	l.kinds = nil
	var unknown []string
	for _, kind := range allowed.Kinds {
		group := gatewayv1.Group(gatewayv1.GroupName)
		if kind.Group != nil {
			group = *kind.Group
		}
		name := string(kind.Kind)
		switch {
		case group != gatewayv1.GroupName:
			unknown = append(unknown, name+"."+string(group))
		case !slices.Contains(supported, name):
			unknown = append(unknown, name)
		case !slices.Contains(l.kinds, name):
			l.kinds = append(l.kinds, name)
		}
	}
	if len(unknown) > 0 {
		l.unresolved = new(condition.ListenerInvalidRouteKinds(unknown, supported))
	}
}

// allows says whether allowedRoutes of a listener, of a Gateway in namespace own,
// allow a route by its kind and namespace.
func (l *listener) allows(x *index, own string, route fleet.RouteRef) bool {
	if !slices.Contains(l.kinds, string(route.Kind)) {
		return false
	}
	switch l.from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSame:
		return route.Name.Namespace == own
	case gatewayv1.NamespacesFromSelector:
		set, found := x.namespaces[route.Name.Namespace]
		return found && l.selector != nil && l.selector.Matches(set)
	default:
		return false
	}
}

// readCertificates reads the certificates that an edge can use: the listener is
// served with them. The first one that it cannot use is reported.
func (b *build) readCertificates(gateway *gatewayv1.Gateway, l *listener) {
	refuse := func(c condition.Condition) {
		if l.unresolved == nil || l.unresolved.Reason == string(gatewayv1.ListenerReasonInvalidRouteKinds) {
			l.unresolved = &c
		}
	}
	if len(l.spec.TLS.CertificateRefs) == 0 {
		refuse(condition.ListenerInvalidCertificate("tls.certificateRefs is empty; name a Secret of type kubernetes.io/tls"))
	}
	for i := range l.spec.TLS.CertificateRefs {
		ref := &l.spec.TLS.CertificateRefs[i]
		name := fleet.ObjectName{Namespace: gateway.Namespace, Name: string(ref.Name)}
		if ref.Namespace != nil && *ref.Namespace != "" {
			name.Namespace = string(*ref.Namespace)
		}
		if ref.Group != nil && *ref.Group != corev1.GroupName || ref.Kind != nil && *ref.Kind != "Secret" {
			refuse(condition.ListenerInvalidCertificate(fmt.Sprintf("certificateRefs[%d] names a %s; use a Secret", i, ptr.Deref(ref.Kind, ""))))
			continue
		}
		if !b.index.permitted(condition.Gateway, gateway.Namespace, corev1.GroupName, "Secret", name) {
			refuse(condition.ListenerCertificateNotPermitted(name, gateway.Namespace))
			continue
		}
		if problem := b.secretProblem(name); problem != "" {
			refuse(condition.ListenerInvalidCertificate(problem))
			continue
		}
		if !slices.Contains(l.secrets, name.String()) {
			l.secrets = append(l.secrets, name.String())
		}
	}
}

func (b *build) secretProblem(name fleet.ObjectName) string {
	if problem, found := b.secrets[name]; found {
		return problem
	}
	problem := fmt.Sprintf("there is no Secret %q of type kubernetes.io/tls; create it, of that type, with tls.crt and tls.key", name)
	if secret := b.index.secrets[name]; secret != nil {
		problem = b.cachedCertificateProblem(secret)
	} else if readable := b.index.secretNamespaces; len(readable) > 0 && !slices.Contains(readable, name.Namespace) {
		problem = fmt.Sprintf("the hub may not read Secret %q; use one in namespace %s, or have %q added to secretNamespaces of the hub's chart",
			name, strings.Join(readable, ", "), name.Namespace)
	}
	b.secrets[name] = problem
	return problem
}

// findConflicts marks all listeners that cannot be distinguished: there is no
// winner (apis/v1 GatewaySpec.Listeners). It also records which HTTPS listeners
// have overlapping hostnames: they are distinct, and their reports name each other.
func findConflicts(listeners []*listener) {
	type key struct {
		port     uint16
		protocol model.Protocol
		host     string
	}
	byPort, byHost := map[uint16][]*listener{}, map[key][]*listener{}
	for _, l := range listeners {
		if !l.ownsHostname() {
			continue
		}
		byPort[l.port] = append(byPort[l.port], l)
		k := key{l.port, l.protocol, l.host}
		byHost[k] = append(byHost[k], l)
	}
	for _, l := range listeners {
		if !l.ownsHostname() {
			continue
		}
		same := byHost[key{l.port, l.protocol, l.host}]
		others := names(byPort[l.port], func(o *listener) bool { return o.protocol != l.protocol })
		switch {
		case len(others) > 0:
			l.conflict = new(condition.ListenerProtocolConflict(int32(l.port), string(l.protocol), others))
		case len(same) > 1:
			others = names(same, func(o *listener) bool { return o != l })
			l.conflict = new(condition.ListenerHostnameConflict(int32(l.port), l.host, others))
		case l.protocol == model.HTTPS:
			l.overlaps = names(byPort[l.port], func(o *listener) bool { return o != l && intersection(o.host, l.host) != "" })
		}
	}
}

func names(listeners []*listener, which func(*listener) bool) []string {
	var found []string
	for _, l := range listeners {
		if which(l) {
			found = append(found, string(l.spec.Name))
		}
	}
	return found
}
