package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/replica"
	"crossway.dev/crossway/pkg/replica/link"
)

// newLink makes what joins this replica to the others.
func newLink(o Options, objects cache.Cache) *link.Link {
	return link.New(link.Config{Name: replicaName(), Version: program.Version(), Address: o.replicaAddr(), Peers: peers(objects, o.Namespace), Informers: objects,
		Secret: types.NamespacedName{Namespace: o.Namespace, Name: registration.ReplicaSecret}, Log: ctrl.Log.WithName("hub").WithName("replicas")})
}

// replicaName is that of the pod, and outside of a cluster that of the machine.
func replicaName() string {
	host, err := os.Hostname()
	if err != nil {
		host = name
	}
	return cmp.Or(os.Getenv("POD_NAME"), host)
}

// peers reads where replicas are. The slices are in the snapshot of the caches, too.
func peers(reader client.Reader, namespace string) func(context.Context) ([]replica.Peer, error) {
	return func(ctx context.Context) ([]replica.Peer, error) {
		var slices discoveryv1.EndpointSliceList
		if err := reader.List(ctx, &slices, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: replica.ServiceName}); err != nil {
			return nil, fmt.Errorf("list the slices of Service %s: %w", replica.ServiceName, err)
		}
		return replica.PeersOf(slices.Items), nil
	}
}
