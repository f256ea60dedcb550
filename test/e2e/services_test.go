package e2e

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

func headless(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }

func ports(all ...corev1.ServicePort) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Ports = all }
}

// What clusters import follows what clusters export, in every cluster that has the namespace: the behaviours of the
// official suite that need no pod, and what it leaves out.
func TestServices(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*shared)
	}{
		{"an import as long as one export", importWhileExported},
		{"ClusterIP becomes ClusterSetIP", clusterSetIP},
		{"headless becomes Headless without IPs", headlessImport},
		{"ExternalName is refused", externalName},
		{"properties of the Service", properties},
		{"labels and annotations of spec only", labels},
		{"an IP for each family", ips},
		{"union of ports", unionOfPorts},
		{"the senior's port number", portNumberConflict},
		{"the senior's type", typeConflict},
		{"the senior's labels", labelsConflict},
		{"the senior's session affinity", affinityConflict},
		{"the senior's traffic policy", policyConflict},
		{"families without common one", familyConflict},
		{"three clusters, and a conflict cleared", threeClusters},
		{"namespaces come and go", namespacesComeAndGo},
		{"slices with the standard labels", standardSlices},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newShared(t)) })
	}
}

func importWhileExported(s *shared) {
	s.serve(s.west)
	for _, m := range s.all() {
		s.imported(m, "one exporter", clustersAre("us-west"))
	}
	s.serve(s.east)
	s.imported(s.far, "two exporters", clustersAre("us-west", "us-east"))
	s.noConflict(s.west, s.east)
	s.unexport(s.west)
	for _, m := range s.all() {
		s.imported(m, "the other exporter", clustersAre("us-east"))
	}
	s.unexport(s.east)
	for _, m := range s.all() {
		s.noImport(m)
	}
}

func clusterSetIP(s *shared) {
	s.serve(s.west)
	s.says(s.west, mcsv1beta1.ServiceExportConditionValid, metav1.ConditionTrue)
	s.says(s.west, mcsv1beta1.ServiceExportConditionReady, metav1.ConditionTrue)
	for _, m := range s.all() {
		i := s.imported(m, "ports and an IP", func(i *mcsv1beta1.ServiceImport) bool {
			return portsOf(i) == "dns 80/UDP, http 80/TCP" && len(i.Spec.IPs) > 0
		})
		if i.Spec.Type != mcsv1beta1.ClusterSetIP {
			s.Errorf("%s: type %s", m.Name, i.Spec.Type)
		}
	}
	s.unexport(s.west)
	for _, m := range s.all() {
		s.noImport(m)
	}
}

func headlessImport(s *shared) {
	s.serve(s.west, headless)
	for _, m := range s.all() {
		i := s.imported(m, "type Headless, slices present", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Spec.Type == mcsv1beta1.Headless && meta.IsStatusConditionTrue(i.Status.Conditions, string(mcsv1beta1.ServiceImportConditionReady))
		})
		if len(i.Spec.IPs) > 0 {
			s.Errorf("%s: IPs %v", m.Name, i.Spec.IPs)
		}
	}
	s.unexport(s.west)
	for _, m := range s.all() {
		s.noImport(m)
	}
}

func externalName(s *shared) {
	s.serve(s.west, func(service *corev1.Service) {
		service.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	})
	s.says(s.west, mcsv1beta1.ServiceExportConditionValid, metav1.ConditionFalse, string(mcsv1beta1.ServiceExportReasonInvalidServiceType))
	s.noImport(s.far)
}

// properties are one Service's: session affinity with its time, both traffic properties.
func properties(s *shared) {
	exported := s.service(s.west, func(service *corev1.Service) {
		service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		service.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(10))}}
		service.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
		service.Spec.TrafficDistribution = new(corev1.ServiceTrafficDistributionPreferClose)
	})
	s.export(s.west)
	for _, m := range s.all() {
		s.imported(m, "the properties of the Service", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Spec.SessionAffinity == exported.Spec.SessionAffinity && i.Spec.SessionAffinityConfig != nil &&
				*i.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds == 10 &&
				i.Spec.InternalTrafficPolicy != nil && *i.Spec.InternalTrafficPolicy == *exported.Spec.InternalTrafficPolicy &&
				i.Spec.TrafficDistribution != nil && *i.Spec.TrafficDistribution == *exported.Spec.TrafficDistribution
		})
	}
}

func withLabels(value string) func(*mcsv1beta1.ServiceExport) {
	return func(e *mcsv1beta1.ServiceExport) {
		e.Spec.ExportedLabels, e.Spec.ExportedAnnotations = map[string]string{"team": value}, map[string]string{"note": value}
	}
}

func labels(s *shared) {
	s.service(s.west)
	s.export(s.west, withLabels("shop"))
	for _, m := range s.all() {
		i := s.imported(m, "the exported label", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Labels["team"] == "shop" && i.Annotations["note"] == "shop"
		})
		if i.Labels["own"] != "" || i.Annotations["own"] != "" {
			s.Errorf("%s: labels %v, annotations %v of metadata", m.Name, i.Labels, i.Annotations)
		}
	}
}

func ips(s *shared) {
	s.serve(s.west)
	for _, m := range s.all() {
		i := s.imported(m, "an IP", func(i *mcsv1beta1.ServiceImport) bool { return len(i.Spec.IPs) > 0 })
		if len(i.Spec.IPs) != len(i.Spec.IPFamilies) || i.Spec.IPFamilies[0] != corev1.IPv4Protocol || !strings.Contains(i.Spec.IPs[0], ".") {
			s.Errorf("%s: IPs %v, families %v", m.Name, i.Spec.IPs, i.Spec.IPFamilies)
		}
		name := i.Annotations["multicluster.kubernetes.io/derived-service"]
		var derived corev1.Service
		s.Must(m.api.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, &derived))
		if derived.Spec.ClusterIP != i.Spec.IPs[0] || derived.Spec.Selector != nil {
			s.Errorf("%s: derived Service %s has IP %s and selector %v, the import %v", m.Name, name, derived.Spec.ClusterIP, derived.Spec.Selector, i.Spec.IPs)
		}
	}
}

func unionOfPorts(s *shared) {
	s.serve(s.west, ports(tcp("http", 80)))
	s.serveSecond(s.east, ports(tcp("http", 80), corev1.ServicePort{Name: "stream", Port: 142, Protocol: corev1.ProtocolSCTP}))
	s.conflict(mcsv1beta1.ServiceExportReasonPortConflict, s.west, s.east)
	for _, m := range s.all() {
		s.imported(m, "the ports of both", portsAre("http 80/TCP, stream 142/SCTP"))
	}
}

func portNumberConflict(s *shared) {
	s.serve(s.west, ports(tcp("http", 80)))
	s.serveSecond(s.east, ports(tcp("http", 81)))
	s.conflict(mcsv1beta1.ServiceExportReasonPortConflict, s.west, s.east)
	s.imported(s.far, "the senior's port", portsAre("http 80/TCP"))
	s.editService(s.east, ports(tcp("http", 80)))
	s.noConflict(s.west, s.east)
}

func typeConflict(s *shared) {
	s.serve(s.west)
	s.serveSecond(s.east, headless)
	s.conflict(mcsv1beta1.ServiceExportReasonTypeConflict, s.west, s.east)
	for _, m := range s.all() {
		s.imported(m, "the senior's type", func(i *mcsv1beta1.ServiceImport) bool { return i.Spec.Type == mcsv1beta1.ClusterSetIP })
	}
}

func labelsConflict(s *shared) {
	s.service(s.west)
	s.export(s.west, withLabels("shop"))
	s.imported(s.west, "the first export", always)
	s.service(s.east)
	s.export(s.east, withLabels("other"))
	s.conflict(mcsv1beta1.ServiceExportReasonLabelsConflict, s.west, s.east)
	s.conflict(mcsv1beta1.ServiceExportReasonAnnotationsConflict, s.west, s.east)
	s.imported(s.far, "the senior's labels", func(i *mcsv1beta1.ServiceImport) bool {
		return i.Labels["team"] == "shop" && i.Annotations["note"] == "shop"
	})
	s.unexport(s.west)
	s.imported(s.far, "the labels of who is left", func(i *mcsv1beta1.ServiceImport) bool { return i.Labels["team"] == "other" })
	s.noConflict(s.east)
}

func affinityConflict(s *shared) {
	sticky := func(seconds int32) func(*corev1.Service) {
		return func(service *corev1.Service) {
			service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			service.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
	s.serve(s.west, sticky(10))
	s.serveSecond(s.east)
	s.conflict(mcsv1beta1.ServiceExportReasonSessionAffinityConflict, s.west, s.east)
	s.imported(s.far, "the senior's affinity", func(i *mcsv1beta1.ServiceImport) bool {
		return i.Spec.SessionAffinity == corev1.ServiceAffinityClientIP
	})
	s.editService(s.east, sticky(20))
	s.conflict(mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict, s.west, s.east)
	s.editService(s.east, sticky(10))
	s.noConflict(s.west, s.east)
}

func policyConflict(s *shared) {
	s.serve(s.west)
	s.serveSecond(s.east, func(service *corev1.Service) {
		service.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
		service.Spec.TrafficDistribution = new(corev1.ServiceTrafficDistributionPreferClose)
	})
	s.conflict(mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict, s.west, s.east)
	s.conflict(mcsv1beta1.ServiceExportReasonTrafficDistributionConflict, s.west, s.east)
	s.imported(s.far, "the senior's policies", func(i *mcsv1beta1.ServiceImport) bool {
		return (i.Spec.InternalTrafficPolicy == nil || *i.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyCluster) && i.Spec.TrafficDistribution == nil
	})
}

func families(all ...corev1.IPFamily) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.IPFamilies = all
		s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		if len(all) > 1 {
			s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
		}
	}
}

// familyConflict: a cluster whose Service has no address of the senior's family cannot be reached at the import's IP.
func familyConflict(s *shared) {
	s.serve(s.west, families(corev1.IPv4Protocol))
	s.serveSecond(s.east, families(corev1.IPv6Protocol))
	s.conflict(mcsv1beta1.ServiceExportReasonIPFamilyConflict, s.west, s.east)
	s.unexport(s.east)
	s.noConflict(s.west)
	s.editService(s.west, families(corev1.IPv4Protocol, corev1.IPv6Protocol))
	for _, m := range s.all() {
		s.imported(m, "an IP of each family, in order", func(i *mcsv1beta1.ServiceImport) bool {
			return slices.Equal(i.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}) && len(i.Spec.IPs) == 2 &&
				strings.Contains(i.Spec.IPs[0], ".") && strings.Contains(i.Spec.IPs[1], ":")
		})
	}
}

func threeClusters(s *shared) {
	s.serve(s.west, ports(tcp("http", 80)))
	s.serveSecond(s.east, ports(tcp("http", 80)))
	s.serve(s.far, ports(tcp("http", 80), tcp("metrics", 9090)))
	for _, m := range s.all() {
		s.imported(m, "three exporters", clustersAre(memberNames...))
	}
	s.conflict(mcsv1beta1.ServiceExportReasonPortConflict, s.all()...)
	s.editService(s.far, ports(tcp("http", 80)))
	s.noConflict(s.all()...)
	s.imported(s.east, "the port of nobody gone", portsAre("http 80/TCP"))
}

// namespacesComeAndGo: an import is where its namespace is, also when that comes later, and in no other cluster.
func namespacesComeAndGo(s *shared) {
	gone := func() {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
		s.Must(s.far.api.Delete(s.Context(), namespace))
		s.Eventually("the namespace to go from "+s.far.Name, func() bool {
			return apierrors.IsNotFound(s.far.api.Get(s.Context(), client.ObjectKeyFromObject(namespace), namespace))
		})
	}
	s.serve(s.west)
	s.imported(s.far, "the export", always)
	gone() // with everything that was imported: nothing holds a namespace
	s.imported(s.east, "where the namespace still is", always)
	s.makeNamespace(s.far)
	s.imported(s.far, "after its namespace came back", func(i *mcsv1beta1.ServiceImport) bool { return len(i.Spec.IPs) > 0 })
}

// standardSlices: others read these labels.
func standardSlices(s *shared) {
	s.service(s.west)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: s.namespace, Name: "hello-by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "hello", discoveryv1.LabelManagedBy: "e2e"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.250.1"}, Hostname: new("hello-0"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
	}
	s.Must(s.west.api.Create(s.Context(), slice))
	s.export(s.west)
	for _, m := range s.all() {
		s.wait("the slice in "+m.Name, func() (bool, any) { found := s.slices(m); return len(found) == 1, found })
		found := s.slices(m)[0]
		want := map[string]string{mcsv1beta1.LabelServiceName: "hello", mcsv1beta1.LabelSourceCluster: "us-west"}
		for k, v := range want {
			if found.Labels[k] != v {
				s.Errorf("%s: labels %v, want %v", m.Name, found.Labels, want)
			}
		}
		if by := found.Labels[discoveryv1.LabelManagedBy]; by == "" || by == "endpointslice-controller.k8s.io" {
			s.Errorf("%s: managed by %q", m.Name, by)
		}
		if len(found.OwnerReferences) != 1 || found.OwnerReferences[0].Kind != "ServiceImport" {
			s.Errorf("%s: owners %v", m.Name, found.OwnerReferences)
		}
		if got := found.Endpoints[0]; !slices.Equal(got.Addresses, []string{"10.1.250.1"}) || got.Hostname == nil || *got.Hostname != "hello-0" {
			s.Errorf("%s: endpoint %+v", m.Name, got)
		}
	}
	s.unexport(s.west)
	for _, m := range s.all() {
		s.wait("no slice in "+m.Name, func() (bool, any) { found := s.slices(m); return len(found) == 0, found })
	}
}
