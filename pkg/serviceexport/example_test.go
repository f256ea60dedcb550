package serviceexport_test

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/serviceexport"
)

// What cluster us-west offers of Service shop/web, and how its ServiceExport reads.
func ExampleDescribe() {
	web := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	offer := serviceexport.Describe(serviceexport.Input{
		Cluster: "us-west",
		Export:  &mcsv1beta1.ServiceExport{ObjectMeta: web},
		Service: &corev1.Service{ObjectMeta: web, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		}},
		Slices: []discoveryv1.EndpointSlice{{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "web-x7k2p", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.7"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		}},
	})
	for _, port := range offer.Spec.Ports {
		fmt.Printf("%s %s %d/%s\n", offer.Spec.Type, port.Name, port.Port, port.Protocol)
	}
	for _, slice := range offer.Slices {
		fmt.Println(slice.Namespace, slice.Endpoints[0].Addresses)
	}
	for _, c := range offer.Conditions {
		fmt.Printf("%s=%s\n", c.Type, c.Status)
	}
	// Output:
	// ClusterSetIP http 80/TCP
	// member-us-west [10.1.0.7]
	// Valid=True
}
