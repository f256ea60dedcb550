package serviceexport

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// Input is what a cluster knows of one member export.
type Input struct {
	Cluster fleet.ClusterName
	Export  *mcsv1beta1.ServiceExport // nil: not exported
	Service *corev1.Service           // nil: does not exist
	Slices  []discoveryv1.EndpointSlice
	Zones   map[string]string // by node: for endpoints without a zone of their own
}

// Offer is what the hub shall have of the service, and what its ServiceExport
// shall say.
type Offer struct {
	Spec       *v1alpha1.MemberExportSpec  // nil: nothing is offered
	Slices     []discoveryv1.EndpointSlice // without owner, sorted by name
	Conditions []condition.Condition       // for the ServiceExport; none where it does not exist
}

// Describe says what a cluster offers of one service. Exported labels and
// annotations come from the export's spec alone, everything else from the
// Service (KEP-1645, "Export semantics").
func Describe(in Input) Offer {
	if !exists(in.Export) {
		return Offer{}
	}
	name := fleet.ServiceName{Namespace: in.Export.Namespace, Name: in.Export.Name}
	if in.Service == nil {
		return Offer{Conditions: []condition.Condition{condition.ExportNoService(name), condition.ExportNotReady(name)}}
	}
	if !exportable(in.Service) {
		return Offer{Conditions: []condition.Condition{
			condition.ExportInvalidType(name, string(in.Service.Spec.Type)), condition.ExportNotReady(name),
		}}
	}
	offer := Offer{Spec: specOf(in.Export, in.Service), Conditions: []condition.Condition{condition.ExportIsValid(name)}}
	var left, unfit []string
	offer.Spec.Labels, left = Labels(in.Export.Spec.ExportedLabels)
	offer.Spec.Annotations, unfit = Annotations(in.Export.Spec.ExportedAnnotations)
	if len(left)+len(unfit) > 0 {
		offer.Conditions = append(offer.Conditions, condition.ExportMetadataInvalid(name, left, unfit))
	}
	var foreign []string
	for _, s := range in.Slices {
		if stripped, ok := Strip(in.Cluster, s, in.Zones); ok {
			offer.Slices = append(offer.Slices, stripped)
		} else {
			foreign = append(foreign, s.Name)
		}
	}
	slices.SortFunc(offer.Slices, func(a, b discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	if len(foreign) > 0 {
		slices.Sort(foreign)
		offer.Conditions = append(offer.Conditions, condition.ExportAddressTypes(name, foreign))
	}
	return offer
}

// Offered tells whether Describe offers anything of a service, for callers
// that have a single slice in hand.
func Offered(export *mcsv1beta1.ServiceExport, service *corev1.Service) bool {
	return exists(export) && service != nil && exportable(service)
}

// exists tells whether a service is exported. One that is being deleted is
// withdrawn at once, whatever finalizers hold it.
func exists(export *mcsv1beta1.ServiceExport) bool {
	return export != nil && export.DeletionTimestamp == nil
}

func exportable(service *corev1.Service) bool {
	return service.Spec.Type != corev1.ServiceTypeExternalName
}

func specOf(export *mcsv1beta1.ServiceExport, service *corev1.Service) *v1alpha1.MemberExportSpec {
	spec := &v1alpha1.MemberExportSpec{
		Service:    v1alpha1.ServiceReference{Namespace: export.Namespace, Name: export.Name},
		ExportedAt: export.CreationTimestamp,
		ServiceProperties: v1alpha1.ServiceProperties{
			Type:                  v1alpha1.ClusterSetIP,
			SessionAffinity:       service.Spec.SessionAffinity,
			SessionAffinityConfig: service.Spec.SessionAffinityConfig.DeepCopy(),
			IPFamilies:            slices.Clone(service.Spec.IPFamilies),
			InternalTrafficPolicy: copied(service.Spec.InternalTrafficPolicy),
			TrafficDistribution:   copied(service.Spec.TrafficDistribution),
		},
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		spec.Type = v1alpha1.Headless
	}
	for _, p := range service.Spec.Ports {
		port := v1alpha1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, AppProtocol: copied(p.AppProtocol)}
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP // the API's default
		}
		spec.Ports = append(spec.Ports, port)
	}
	return spec
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
