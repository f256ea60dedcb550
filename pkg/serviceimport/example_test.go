package serviceimport_test

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceimport"
)

// Two clusters export shop/web with different port numbers. The senior export
// wins, and the status of both exports says so.
func ExampleMerge() {
	export := func(cluster fleet.ClusterName, hour int, port int32) serviceimport.Export {
		return serviceimport.Export{Cluster: cluster, Spec: v1alpha1.MemberExportSpec{
			Service:           v1alpha1.ServiceReference{Namespace: "shop", Name: "web"},
			ExportedAt:        metav1.NewTime(time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			Ports:             []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: port}},
		}}
	}
	merged := serviceimport.Merge([]serviceimport.Export{export("us-west", 9, 8080), export("us-east", 8, 80)}, nil)

	for _, port := range merged.Import.Ports {
		fmt.Printf("%s %d/%s\n", port.Name, port.Port, port.Protocol)
	}
	for _, c := range merged.Conditions["us-west"] {
		fmt.Printf("%s=%s %s\n%s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	// Output:
	// http 80/TCP
	// Conflict=True PortConflict
	// port "http" is TCP 80, so TCP 8080 of the same name here is left out and gets no requests; make them equal or rename one. only in us-east: port TCP 80 ("http"); give all Services the same ports
}
