package serviceimport

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// AnnotationDerivedService is on a ServiceImport and has the name of its derived
// Service (KEP-1645).
const AnnotationDerivedService = "multicluster.kubernetes.io/derived-service"

// DerivedPrefix begins the names of derived Services.
const DerivedPrefix = "crossway-"

// DerivedName is the name of the Service that gives the import of a service its
// IPs. It is a hash, because the Service's own name may be as long as a name can be.
func DerivedName(service string) string {
	sum := sha256.Sum256([]byte(service))
	return DerivedPrefix + hex.EncodeToString(sum[:8])
}

// DerivedService is the Service that gives an import its IPs in one cluster; nil:
// a headless import has none. It has no selector: kube-proxy finds the imported
// slices by their label, and a port of them by its ID, so that no rename of a port
// in the import is seen there. It names no IP families, so that the API server gives it
// those that the cluster has, and a change of the import's families changes nothing.
// All defaults of the API are set, so that it can be compared with what is stored.
func DerivedService(i *mcsv1beta1.ServiceImport) *corev1.Service {
	if i.Spec.Type == mcsv1beta1.Headless {
		return nil
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: i.Namespace, Name: DerivedName(i.Name),
			Labels: map[string]string{LabelManagedBy: ManagedBy, mcsv1beta1.LabelServiceName: i.Name},
		},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeClusterIP,
			IPFamilyPolicy:        ptr.To(corev1.IPFamilyPolicyPreferDualStack),
			SessionAffinity:       corev1.ServiceAffinityNone,
			InternalTrafficPolicy: ptr.To(ptr.Deref(i.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)),
		},
	}
	if prefersClose(i) { // the one of these values that every member's API server takes
		service.Spec.TrafficDistribution = ptr.To(corev1.ServiceTrafficDistributionPreferClose)
	}
	if i.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		service.Spec.SessionAffinityConfig = affinityConfig(i.Spec.SessionAffinityConfig)
	}
	for _, p := range i.Spec.Ports {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{
			Name: idOf(p), Protocol: cmp.Or(p.Protocol, corev1.ProtocolTCP), Port: p.Port, AppProtocol: p.AppProtocol, TargetPort: intstr.FromInt32(p.Port),
		})
	}
	return service
}

// maxAffinitySeconds is the longest affinity that a Service may have: a day.
const maxAffinitySeconds = 24 * 60 * 60

func affinityConfig(c *corev1.SessionAffinityConfig) *corev1.SessionAffinityConfig {
	timeout := corev1.DefaultClientIPServiceAffinitySeconds
	if c != nil && c.ClientIP != nil {
		timeout = min(max(ptr.Deref(c.ClientIP.TimeoutSeconds, timeout), 1), maxAffinitySeconds) // a member may write any number to the hub
	}
	return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
}

// SameService tells whether a stored derived Service needs no write. Fields that
// the API server fills in do not count.
func SameService(have, want *corev1.Service) bool {
	return have.Spec.Type == want.Spec.Type && len(have.Spec.Selector) == 0 && hasAll(have.Labels, want.Labels) &&
		equal(have.Spec.Ports, want.Spec.Ports) &&
		equal(have.Spec.IPFamilyPolicy, want.Spec.IPFamilyPolicy) &&
		have.Spec.SessionAffinity == want.Spec.SessionAffinity && equal(have.Spec.SessionAffinityConfig, want.Spec.SessionAffinityConfig) &&
		equal(have.Spec.InternalTrafficPolicy, want.Spec.InternalTrafficPolicy) &&
		equal(have.Spec.TrafficDistribution, want.Spec.TrafficDistribution)
}

// MemberImport returns the ServiceImport that a member shows for one that the hub
// serves. derived is its derived Service as stored; nil: there is none (yet).
// What it returns may be served again: MemberImport of a MemberImport is the same.
func MemberImport(served *mcsv1beta1.ServiceImport, derived *corev1.Service) Projection {
	p := Projection{Import: mcsv1beta1.ServiceImport{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: served.Namespace, Name: served.Name,
			Labels: maps.Clone(served.Labels), Annotations: maps.Clone(served.Annotations),
		},
		Spec:   *served.Spec.DeepCopy(),
		Status: mcsv1beta1.ServiceImportStatus{Clusters: slices.Clone(served.Status.Clusters), EndpointSliceObjects: mcsv1beta1.EndpointSliceObjectsAbsent},
	}}
	i := &p.Import
	delete(i.Annotations, AnnotationDerivedService)
	i.Spec.IPs = nil
	name := fleet.ServiceName{Namespace: served.Namespace, Name: served.Name}
	switch {
	case served.Spec.Type == mcsv1beta1.Headless:
		p.Conditions = []condition.Condition{condition.ImportUsable()}
		return p
	case derived == nil:
		p.Conditions = []condition.Condition{condition.ImportPending(name)}
		return p
	case !OurService(derived):
		p.Conditions = []condition.Condition{condition.ImportServiceTaken(name, derived.Name)}
		return p
	}
	families, ips := familiesOf(served.Spec.IPFamilies, derived)
	if len(ips) == 0 {
		p.Conditions = []condition.Condition{condition.ImportFamilyNotSupported(name, served.Spec.IPFamilies, derived.Spec.IPFamilies)}
		return p
	}
	if i.Annotations == nil {
		i.Annotations = map[string]string{}
	}
	i.Annotations[AnnotationDerivedService] = derived.Name
	i.Spec.IPFamilies, i.Spec.IPs = families, ips
	p.Conditions = []condition.Condition{condition.ImportUsable()}
	return p
}

// familiesOf returns those of an import's IP families that the derived Service has,
// in the import's order, and the Service's address of each. An import without
// families has the Service's.
func familiesOf(wanted []corev1.IPFamily, derived *corev1.Service) (families []corev1.IPFamily, ips []string) {
	if len(wanted) == 0 {
		wanted = derived.Spec.IPFamilies
	}
	for _, family := range wanted {
		if at := slices.Index(derived.Spec.IPFamilies, family); at >= 0 && at < len(derived.Spec.ClusterIPs) {
			families = append(families, family)
			ips = append(ips, derived.Spec.ClusterIPs[at])
		}
	}
	return families, ips
}

// OurService tells whether Crossway made a derived Service.
func OurService(s *corev1.Service) bool { return s.Labels[LabelManagedBy] == ManagedBy }
