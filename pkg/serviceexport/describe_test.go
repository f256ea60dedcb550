package serviceexport

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// The stories of Describe: shop/web in a member, as YAML, and what the member
// offers of it.
func TestDescribeStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/describe.txt", func(t *testing.T, d *datadriven.TestData) string {
		var in Input
		testkit.Must(t, yaml.UnmarshalStrict([]byte(d.Input), &in))
		in.Cluster = "us-west"
		name := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
		if in.Export != nil {
			in.Export.ObjectMeta.Namespace, in.Export.ObjectMeta.Name = name.Namespace, name.Name
			in.Export.CreationTimestamp = metav1.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		if in.Service != nil {
			in.Service.ObjectMeta.Namespace, in.Service.ObjectMeta.Name = name.Namespace, name.Name
		}
		for i := range in.Slices {
			in.Slices[i].Namespace = name.Namespace
			in.Slices[i].Labels = map[string]string{discoveryv1.LabelServiceName: name.Name, "private": "yes"}
		}
		before := Input{Export: in.Export.DeepCopy(), Service: in.Service.DeepCopy()}
		offer := Describe(in)
		if !equality.Semantic.DeepEqual(in.Export, before.Export) || !equality.Semantic.DeepEqual(in.Service, before.Service) {
			t.Error("Describe changes its input")
		}
		return describeOffer(t, offer)
	})
}

func describeOffer(t *testing.T, o Offer) string {
	var b strings.Builder
	if o.Spec == nil {
		b.WriteString("nothing offered\n")
	} else {
		spec, err := yaml.Marshal(o.Spec)
		testkit.Must(t, err)
		b.Write(spec)
	}
	for _, s := range o.Slices {
		fmt.Fprintf(&b, "slice %s/%s %s\n", s.Namespace, s.Name, s.AddressType)
		for _, l := range slices.Sorted(func(yield func(string) bool) {
			for k, v := range s.Labels {
				if !yield(k + "=" + v) {
					return
				}
			}
		}) {
			fmt.Fprintf(&b, "  %s\n", l)
		}
		for _, part := range []any{s.Ports, s.Endpoints} {
			text, err := yaml.Marshal(part)
			testkit.Must(t, err)
			b.Write(text)
		}
	}
	for _, c := range o.Conditions {
		fmt.Fprintf(&b, "%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

// The longest names give valid names on the hub, and no two slices have the same.
func TestNames(t *testing.T) {
	long := strings.Repeat("n", 63)
	service := fleet.ServiceName{Namespace: long, Name: "s" + strings.Repeat("x", 62)}
	if wrong := validation.IsDNS1123Subdomain(v1alpha1.ServiceReference(service).ObjectName()); len(wrong) > 0 {
		t.Error("MemberExport: ", wrong)
	}
	slice := func(namespace, name string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service.Name},
		}}
	}
	names := map[string]bool{}
	for _, s := range []*discoveryv1.EndpointSlice{slice(long, strings.Repeat("y", 253)), slice(long, "a"), slice("n", "a"), slice("n-a", ""), slice("n", "-a")} {
		name := SliceName(s)
		if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
			t.Errorf("EndpointSlice %s: %v", name, wrong)
		}
		if names[name] {
			t.Errorf("two slices have the name %s", name)
		}
		names[name] = true
	}
	if a, b := SliceName(slice("n", "a")), SliceName(slice("n", "a")); a != b {
		t.Errorf("one slice has two names: %s, %s", a, b)
	}
}

// An export that is being deleted is withdrawn although it has finalizers.
func TestDescribeDeleting(t *testing.T) {
	now := metav1.Now()
	export := &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", DeletionTimestamp: &now}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	if offer := Describe(Input{Export: export, Service: service}); offer.Spec != nil || offer.Conditions != nil {
		t.Errorf("an export that is being deleted offers %+v", offer)
	}
	if Offered(export, service) {
		t.Error("an export that is being deleted counts as offered")
	}
}

// Strip returns the same for endpoints in another order, on another node or with
// hints, and leaves those that were pushed in their places.
func TestStripOrder(t *testing.T) {
	yes, node, other := true, "n1", "n2"
	a := discoveryv1.Endpoint{Addresses: []string{"10.1.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}
	b := discoveryv1.Endpoint{Addresses: []string{"10.1.0.2"}}
	moved := a
	moved.NodeName, moved.Hints = &other, &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "us-b"}}}
	a.NodeName = &node
	source := func(pushed *discoveryv1.EndpointSlice, endpoints ...discoveryv1.Endpoint) Source {
		return Source{Slice: discoveryv1.EndpointSlice{AddressType: "IPv4", Endpoints: endpoints}, Service: &corev1.Service{}, Pushed: []*discoveryv1.EndpointSlice{pushed}}
	}
	one := Strip("us-west", source(nil, a, b))
	two := Strip("us-west", source(nil, b, moved))
	if !equality.Semantic.DeepEqual(one, two) {
		t.Errorf("order, node or hints matter:\n%+v\n%+v", one, two)
	}
	first := discoveryv1.Endpoint{Addresses: []string{"10.1.0.0"}}
	grown := Strip("us-west", source(&one[0], first, b, a))
	var addresses []string
	for _, e := range grown[0].Endpoints {
		addresses = append(addresses, e.Addresses...)
	}
	if want := []string{"10.1.0.1", "10.1.0.2", "10.1.0.0"}; !slices.Equal(addresses, want) {
		t.Errorf("with a new endpoint the hub has %v, want %v", addresses, want)
	}
}
