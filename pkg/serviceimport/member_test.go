package serviceimport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
)

// memberStory is what a member "here" of region us is served of shop/web, and what
// it has itself, as YAML.
type memberStory struct {
	Import  mcsv1beta1.ServiceImportSpec
	Labels  map[string]string
	IPs     []string // of the derived Service, in the order of Families
	Family  []corev1.IPFamily
	Foreign bool // the derived Service is somebody else's
	Slices  []storySlice
	Service *corev1.ServiceSpec // of the member's own export
	Own     []storySlice
	Kept    []storySlice
	Zones   []string
	Region  *string
	Without bool // the member is none of the import's clusters
}

type storySlice struct {
	Cluster, Region, Name string
	Type                  discoveryv1.AddressType
	Ports                 []discoveryv1.EndpointPort
	Endpoints             []discoveryv1.Endpoint
}

// The stories of a member's import.
func TestMemberStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/member.txt", func(t *testing.T, d *datadriven.TestData) string {
		story := memberStory{Zones: []string{"us-1", "us-2"}, Region: ptr.To("us")}
		testkit.Must(t, yaml.UnmarshalStrict([]byte(d.Input), &story))
		served := story.served()
		derived := story.derived(served)
		before := served.DeepCopy()
		projection := MemberImport(served, derived)
		e := story.endpoints(served)
		imported := e.ImportedSlices()
		if !equal(served, before) {
			t.Error("the input changed")
		}
		again := projection.Import.DeepCopy()
		again.Status = served.Status
		if twice := MemberImport(again, derived); !equal(twice.Import.Spec, projection.Import.Spec) || !equal(twice.Import.Annotations, projection.Import.Annotations) {
			t.Errorf("a MemberImport of a MemberImport differs: %+v", twice.Import)
		}
		return describeMember(projection, derived, imported)
	})
}

func (s memberStory) served() *mcsv1beta1.ServiceImport {
	i := &mcsv1beta1.ServiceImport{Spec: s.Import}
	i.Namespace, i.Name, i.Labels = "shop", "web", s.Labels
	if *s.Region != "" {
		i.Annotations = map[string]string{v1alpha1.AnnotationRegion: *s.Region}
	}
	if i.Spec.Type == "" {
		i.Spec.Type = mcsv1beta1.ClusterSetIP
	}
	if i.Spec.Ports == nil {
		i.Spec.Ports = []mcsv1beta1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}
	}
	if !s.Without {
		i.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: "here"}}
	}
	return i
}

// derived is the derived Service as an API server stores it.
func (s memberStory) derived(served *mcsv1beta1.ServiceImport) *corev1.Service {
	service := DerivedService(served)
	if service == nil || len(s.IPs) == 0 {
		return nil
	}
	service.Spec.ClusterIPs, service.Spec.IPFamilies = s.IPs, s.Family
	if len(s.Family) == 0 {
		service.Spec.IPFamilies = []corev1.IPFamily{"IPv4"}
	}
	if s.Foreign {
		service.Labels = nil
	}
	return service
}

func (s memberStory) endpoints(served *mcsv1beta1.ServiceImport) Endpoints {
	e := Endpoints{Cluster: "here", Import: served, Zones: s.Zones}
	for _, slice := range s.Slices {
		e.Served = append(e.Served, slice.slice(mcsv1beta1.LabelServiceName))
	}
	for _, slice := range s.Own {
		e.ServiceSlices = append(e.ServiceSlices, slice.slice(discoveryv1.LabelServiceName))
	}
	for _, slice := range s.Kept {
		kept := slice.slice(mcsv1beta1.LabelServiceName)
		e.Kept, e.Stored = append(e.Kept, kept), append(e.Stored, kept)
	}
	if s.Service != nil {
		e.Service = &corev1.Service{Spec: *s.Service}
	}
	return e
}

func (s storySlice) slice(label string) discoveryv1.EndpointSlice {
	slice := discoveryv1.EndpointSlice{AddressType: s.Type, Ports: s.Ports, Endpoints: s.Endpoints}
	slice.Namespace, slice.Name = "shop", s.Name
	if slice.Name == "" {
		slice.Name = "web-" + s.Cluster
	}
	if slice.AddressType == "" {
		slice.AddressType = discoveryv1.AddressTypeIPv4
	}
	slice.Labels = map[string]string{label: "web", mcsv1beta1.LabelSourceCluster: s.Cluster, v1alpha1.LabelSourceRegion: s.Region}
	if slice.Ports == nil {
		slice.Ports = []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}}
	}
	return slice
}

func describeMember(p Projection, derived *corev1.Service, imported []discoveryv1.EndpointSlice) string {
	var b strings.Builder
	spec := p.Import.Spec
	fmt.Fprintf(&b, "import %s %v %v %v\n", spec.Type, spec.IPFamilies, spec.IPs, p.Import.Annotations)
	for _, c := range p.Conditions {
		fmt.Fprintf(&b, "  %s\n", conditionText(c))
	}
	if derived != nil {
		fmt.Fprintf(&b, "service %s", derived.Name)
		for _, port := range derived.Spec.Ports {
			fmt.Fprintf(&b, " %s=%d/%s", port.Name, port.Port, port.Protocol)
		}
		fmt.Fprintf(&b, " affinity=%s internal=%s\n", derived.Spec.SessionAffinity, *derived.Spec.InternalTrafficPolicy)
	}
	for _, s := range imported {
		fmt.Fprintf(&b, "slice %s of %s %s", s.Name, s.Labels[mcsv1beta1.LabelSourceCluster], s.AddressType)
		for _, port := range s.Ports {
			fmt.Fprintf(&b, " %s=%d", *port.Name, *port.Port)
			if port.AppProtocol != nil {
				fmt.Fprintf(&b, "/%s", *port.AppProtocol)
			}
		}
		if proxied := s.Labels[discoveryv1.LabelServiceName]; proxied != "" {
			fmt.Fprintf(&b, " for %s", proxied)
		}
		fmt.Fprintln(&b)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %s", endpointText(e))
		}
	}
	return b.String()
}

func endpointText(e discoveryv1.Endpoint) string {
	text := strings.Join(e.Addresses, " ")
	if e.NodeName != nil {
		text += " on " + *e.NodeName
	}
	if e.Hostname != nil {
		text += " named " + *e.Hostname
	}
	if !ptr.Deref(e.Conditions.Ready, true) {
		text += " not ready"
	}
	if e.Hints != nil {
		var zones []string
		for _, z := range e.Hints.ForZones {
			zones = append(zones, fmt.Sprintf("%q", z.Name))
		}
		text += " for zones " + strings.Join(zones, " ")
	}
	return text + "\n"
}

func conditionText(c condition.Condition) string {
	return fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
}

// A member may write anything to the hub that its CRD takes. Whatever that is, the
// import has IPs in all members: their API servers take its derived Service.
func TestEveryImportHasAPossibleService(t *testing.T) {
	hostile := v1alpha1.FleetServiceSpec{
		Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"},
		ServiceProperties: v1alpha1.ServiceProperties{
			Type: v1alpha1.ClusterSetIP, SessionAffinity: corev1.ServiceAffinityClientIP,
			SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](-1)}},
			TrafficDistribution:   ptr.To("nowhere"),
		},
		Ports: []v1alpha1.FleetServicePort{
			{ServicePort: v1alpha1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, AppProtocol: ptr.To("kubernetes.io/h2c")}},
			{ServicePort: v1alpha1.ServicePort{Name: "Any Name!", Protocol: corev1.ProtocolTCP, Port: 81, AppProtocol: ptr.To("no protocol!")}},
		},
	}
	projected := Project(v1alpha1.FleetService{Spec: hostile})
	service := DerivedService(&projected.Import)
	if p := service.Spec.Ports; ptr.Deref(p[0].AppProtocol, "") != "kubernetes.io/h2c" || p[1].AppProtocol != nil || p[1].Name != "tcp-81" {
		t.Errorf("ports are %v", p)
	}
	if service.Spec.TrafficDistribution != nil {
		t.Errorf("trafficDistribution is %q", *service.Spec.TrafficDistribution)
	}
	if seconds := *service.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds; seconds < 1 || seconds > 86400 {
		t.Errorf("the affinity lasts %d s", seconds)
	}
}
