package serviceexport

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// Input is everything that a cluster has of one service.
type Input struct {
	Cluster fleet.ClusterName
	Export  *mcsv1beta1.ServiceExport // nil: not exported
	Service *corev1.Service           // nil: does not exist
	Slices  []discoveryv1.EndpointSlice
	Zones   map[string]string // by node, for endpoints without a zone of their own
	Refused []Refusal         // slices that the hub did not take
}

// Refusal is the hub's answer to a slice that it did not take.
type Refusal struct{ Slice, Answer string }

// Offer is what a cluster offers of one service: the objects that the hub should
// have, and the conditions of the ServiceExport.
type Offer struct {
	Spec       *v1alpha1.MemberExportSpec  // nil: nothing is offered
	Slices     []discoveryv1.EndpointSlice // without owner, sorted by name
	Conditions []condition.Condition       // none if there is no ServiceExport
}

// Describe returns what a cluster offers of one service. Exported labels and
// annotations come from the ServiceExport's spec only, everything else from the
// Service (KEP-1645, "Export semantics").
func Describe(in Input) Offer {
	if !exists(in.Export) {
		return Offer{}
	}
	name := fleet.ServiceName{Namespace: in.Export.Namespace, Name: in.Export.Name}
	if in.Service == nil {
		return Offer{Conditions: []condition.Condition{condition.ExportNoService(name), condition.ExportNotReady(name)}}
	}
	if invalid := invalidType(name, in.Service); invalid != nil {
		return Offer{Conditions: []condition.Condition{*invalid, condition.ExportNotReady(name)}}
	}
	offer := Offer{Spec: specOf(in.Export, in.Service), Conditions: []condition.Condition{condition.ExportIsValid(name)}}
	var invalidLabels, invalidAnnotations []string
	offer.Spec.Labels, invalidLabels = Labels(in.Export.Spec.ExportedLabels)
	offer.Spec.Annotations, invalidAnnotations = Annotations(in.Export.Spec.ExportedAnnotations)
	if len(invalidLabels)+len(invalidAnnotations) > 0 {
		offer.Conditions = append(offer.Conditions, condition.ExportMetadataInvalid(name, invalidLabels, invalidAnnotations))
	}
	var unpushable []string
	for _, s := range in.Slices {
		if !Pushable(&s) {
			unpushable = append(unpushable, s.Name)
		}
		offer.Slices = append(offer.Slices, Strip(in.Cluster, Source{Slice: s, Service: in.Service, Zones: in.Zones})...)
	}
	slices.SortFunc(offer.Slices, func(a, b discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(unpushable)
	if len(unpushable) > 0 {
		offer.Conditions = append(offer.Conditions, condition.ExportAddressTypes(name, unpushable))
	} else if n := len(in.Refused); n > 0 {
		var refused []string
		for _, r := range in.Refused {
			refused = append(refused, r.Slice)
		}
		slices.Sort(refused)
		offer.Conditions = append(offer.Conditions, condition.ExportSlicesRefused(name, in.Cluster, refused, in.Refused[n-1].Answer))
	}
	return offer
}

// Offered tells whether Describe offers anything of a service. It is for callers
// that handle a single slice.
func Offered(export *mcsv1beta1.ServiceExport, service *corev1.Service) bool {
	return exists(export) && service != nil && Exportable(service)
}

// Exportable tells whether a Service can be exported.
func Exportable(service *corev1.Service) bool {
	return invalidType(fleet.ServiceName{}, service) == nil
}

// exists tells whether a service is exported. An export that is being deleted
// counts as deleted, whatever finalizers it has.
func exists(export *mcsv1beta1.ServiceExport) bool {
	return export != nil && export.DeletionTimestamp == nil
}

// invalidType says why a Service cannot be exported; nil: it can.
func invalidType(name fleet.ServiceName, service *corev1.Service) *condition.Condition {
	switch {
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return new(condition.ExportInvalidType(name, string(service.Spec.Type)))
	case service.Labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedBy:
		return new(condition.ExportDerived(name))
	}
	return nil
}

func specOf(export *mcsv1beta1.ServiceExport, service *corev1.Service) *v1alpha1.MemberExportSpec {
	from := service.Spec.DeepCopy()
	spec := &v1alpha1.MemberExportSpec{
		Service:    v1alpha1.ServiceReference{Namespace: export.Namespace, Name: export.Name},
		ExportedAt: export.CreationTimestamp,
		ExportUID:  string(export.UID),
		ServiceProperties: v1alpha1.ServiceProperties{
			Type:                  v1alpha1.ClusterSetIP,
			SessionAffinity:       from.SessionAffinity,
			SessionAffinityConfig: from.SessionAffinityConfig,
			IPFamilies:            from.IPFamilies,
			InternalTrafficPolicy: from.InternalTrafficPolicy,
			TrafficDistribution:   from.TrafficDistribution,
		},
	}
	if from.ClusterIP == corev1.ClusterIPNone {
		spec.Type = v1alpha1.Headless
	}
	for _, p := range from.Ports {
		spec.Ports = append(spec.Ports, v1alpha1.ServicePort{
			Name: p.Name, Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), // the API's default
			Port: p.Port, AppProtocol: p.AppProtocol,
		})
	}
	return spec
}
