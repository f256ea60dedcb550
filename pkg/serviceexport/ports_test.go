package serviceexport

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

// The stories of ports: those of a Service, of its slice in the member and of the
// slice on the hub, and what the hub should have.
func TestPortStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/ports.txt", func(t *testing.T, d *datadriven.TestData) string {
		var in struct {
			Service       []corev1.ServicePort
			Slice, Pushed []discoveryv1.EndpointPort
		}
		testkit.Must(t, yaml.UnmarshalStrict([]byte(d.Input), &in))
		ports := sourceOf(in.Service, in.Slice, in.Pushed, !d.HasArg("by-hand")).ports()
		return describePorts(ports)
	})
}

func sourceOf(service []corev1.ServicePort, slice, pushed []discoveryv1.EndpointPort, byKubernetes bool) Source {
	s := Source{Service: &corev1.Service{Spec: corev1.ServiceSpec{Ports: service}}, Slice: discoveryv1.EndpointSlice{Ports: slice}, Pushed: []*discoveryv1.EndpointSlice{{Ports: pushed}}}
	if byKubernetes {
		s.Slice.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{discoveryv1.LabelManagedBy: kubernetesSlices}}
	}
	return s
}

func describePorts(ports []discoveryv1.EndpointPort) string {
	var b strings.Builder
	for _, p := range ports {
		fmt.Fprintf(&b, "%s %s %d\n", *p.Name, protocolOf(p), *p.Port)
	}
	if len(ports) == 0 {
		return "no ports\n"
	}
	return b.String()
}

// A change of names alone, however many names change and change places, changes
// nothing on the hub, in whatever order its two events arrive. The one exception are
// two targetPorts with names that exchange them: nothing shows that.
func TestRenamesChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SampledFrom([][]int32{{80}, {80, 53}, {80, 53, 443}, {80, 53, 443, 81}}).Draw(t, "numbers")
		names := rapid.Permutation([]string{"", "a", "b", "c", "d"})
		before, beforeServed := drawnPorts(numbers, names.Draw(t, "names before"))
		after, afterServed := drawnPorts(numbers, names.Draw(t, "names after"))
		pushed := sourceOf(before, beforeServed, nil, true).ports()
		if len(pushed) != len(numbers) {
			t.Fatalf("of %d ports the hub has\n%s", len(numbers), describePorts(pushed))
		}
		for what, source := range map[string]Source{
			"the Service first": sourceOf(after, beforeServed, pushed, true),
			"the slice first":   sourceOf(before, afterServed, pushed, true),
			"both":              sourceOf(after, afterServed, pushed, true),
		} {
			if got, want := describePorts(source.ports()), describePorts(pushed); got != want {
				t.Fatalf("%s: the hub gets\n%s and had\n%s", what, got, want)
			}
		}
	})
}

// drawnPorts returns ports of a Service and of its slice. The third has a targetPort
// with a name.
func drawnPorts(numbers []int32, names []string) (service []corev1.ServicePort, slice []discoveryv1.EndpointPort) {
	for i, number := range numbers {
		p := corev1.ServicePort{Name: names[i], Protocol: []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}[i%2], Port: number}
		p.TargetPort = intstr.FromInt32(number + 8000)
		if i == 2 {
			p.TargetPort = intstr.FromString("main")
		}
		service = append(service, p)
		slice = append(slice, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: ptr.To(number + 8000)})
	}
	return service, slice
}

// Ports on the hub are sorted, whatever their order in the member.
func TestPortOrder(t *testing.T) {
	service := []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "b", Port: 443}}
	name, other, number := "a", "b", int32(8080)
	slice := []discoveryv1.EndpointPort{{Name: &name, Port: &number}, {Name: &other, Port: &number}}
	want := describePorts(sourceOf(service, slice, nil, true).ports())
	slices.Reverse(service)
	slices.Reverse(slice)
	if got := describePorts(sourceOf(service, slice, nil, true).ports()); got != want {
		t.Errorf("ports in another order are\n%s instead of\n%s", got, want)
	}
}
