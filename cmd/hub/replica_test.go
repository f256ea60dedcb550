package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/replica"
)

// beside is another replica of a hub, on the same API server.
func (f *fixture) beside() *fixture {
	f.t.Helper()
	r := *f
	r.xds, r.health, r.debug, r.members, r.replicas = freeAddress(f.t), freeAddress(f.t), freeAddress(f.t), freeAddress(f.t), ""
	return &r
}

// startAmong starts a replica that others find by its EndpointSlice, at the same address each time.
func (f *fixture) startAmong(name string) {
	f.t.Helper()
	if f.replicas == "" {
		l := listenHere(f.t)
		f.replicas = l.Addr().String()
		address, port := addressOf(l)
		testkit.Must(f.t, l.Close())
		slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
			ObjectMeta: metav1.ObjectMeta{Namespace: "crossway-system", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: replica.ServiceName}},
			Ports:      []discoveryv1.EndpointPort{{Name: ptr.To(replica.PortName), Port: &port}},
			Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{address}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: name}}}}
		testkit.Must(f.t, f.Create(f.t.Context(), slice))
		f.t.Cleanup(func() { _ = f.Delete(context.Background(), slice) })
	}
	f.startReplica(name, "--replica-addr="+f.replicas, "--leader-elect", "--gossip-addr=0")
}
