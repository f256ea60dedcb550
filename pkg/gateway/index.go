package gateway

import (
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// index finds the objects of an Input by the names that references use. It is
// immutable once built, because a Memo may keep it.
type index struct {
	classes          map[string]*gatewayv1.GatewayClass // of ours
	parameters       map[fleet.ObjectName]*v1alpha1.GatewayParameters
	grants           map[grant]bool
	namespaces       map[string]labels.Set
	secrets          map[fleet.ObjectName]*corev1.Secret
	secretNamespaces []string
	imports          map[fleet.ServiceName]*v1alpha1.FleetService
	serviceImports   map[fleet.ServiceName]bool
	services         map[fleet.ServiceName]*corev1.Service
}

// grant is one pair of a ReferenceGrant's from and to. An empty name is any name.
type grant struct {
	fromGroup, fromKind, fromNamespace string
	toGroup, toKind                    string
	to                                 fleet.ObjectName
}

func indexOf(in Input) *index {
	x := &index{
		grants:           map[grant]bool{},
		namespaces:       make(map[string]labels.Set, len(in.Namespaces)),
		secrets:          make(map[fleet.ObjectName]*corev1.Secret, len(in.Secrets)),
		secretNamespaces: in.SecretNamespaces,
		imports:          make(map[fleet.ServiceName]*v1alpha1.FleetService, len(in.Imports)),
		serviceImports:   make(map[fleet.ServiceName]bool, len(in.ServiceImports)),
		services:         make(map[fleet.ServiceName]*corev1.Service, len(in.Services)),
	}
	x.addClasses(in)
	for i := range in.Namespaces {
		x.namespaces[in.Namespaces[i].Name] = in.Namespaces[i].Labels
	}
	for i := range in.Secrets {
		x.secrets[fleet.ObjectName{Namespace: in.Secrets[i].Namespace, Name: in.Secrets[i].Name}] = &in.Secrets[i]
	}
	for i := range in.Imports {
		service := &in.Imports[i].Spec.Service
		x.imports[fleet.ServiceName{Namespace: service.Namespace, Name: service.Name}] = &in.Imports[i]
	}
	for i := range in.ServiceImports {
		x.serviceImports[fleet.ServiceName{Namespace: in.ServiceImports[i].Namespace, Name: in.ServiceImports[i].Name}] = true
	}
	for i := range in.Services {
		x.services[fleet.ServiceName{Namespace: in.Services[i].Namespace, Name: in.Services[i].Name}] = &in.Services[i]
	}
	x.addGrants(in)
	return x
}

// addClasses adds the objects that decide which EdgePools serve a Gateway.
func (x *index) addClasses(in Input) {
	x.classes = make(map[string]*gatewayv1.GatewayClass, len(in.GatewayClasses))
	x.parameters = make(map[fleet.ObjectName]*v1alpha1.GatewayParameters, len(in.Parameters))
	for i := range in.GatewayClasses {
		if class := &in.GatewayClasses[i]; class.Spec.ControllerName == v1alpha1.GatewayController {
			x.classes[class.Name] = class
		}
	}
	for i := range in.Parameters {
		x.parameters[fleet.ObjectName{Namespace: in.Parameters[i].Namespace, Name: in.Parameters[i].Name}] = &in.Parameters[i]
	}
}

func (x *index) addGrants(in Input) {
	for i := range in.Grants {
		spec := &in.Grants[i].Spec
		for _, from := range spec.From {
			for _, to := range spec.To {
				x.grants[grant{
					fromGroup: string(from.Group), fromKind: string(from.Kind), fromNamespace: string(from.Namespace),
					toGroup: string(to.Group), toKind: string(to.Kind),
					to: fleet.ObjectName{Namespace: in.Grants[i].Namespace, Name: string(ptr.Deref(to.Name, ""))},
				}] = true
			}
		}
	}
}

// permitted says whether objects of a kind and namespace may refer to an object
// (ReferenceGrant, GEP-709). References within one namespace need no grant.
func (x *index) permitted(fromKind condition.Kind, fromNamespace, toGroup, toKind string, to fleet.ObjectName) bool {
	if fromNamespace == to.Namespace {
		return true
	}
	g := grant{
		fromGroup: gatewayv1.GroupName, fromKind: string(fromKind), fromNamespace: fromNamespace,
		toGroup: toGroup, toKind: toKind, to: to,
	}
	if x.grants[g] {
		return true
	}
	g.to.Name = ""
	return x.grants[g]
}
