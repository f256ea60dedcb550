package election

import (
	"fmt"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// renewDeadline is controller-runtime's default, from which the lock's client
// takes its timeout.
const renewDeadline = 10 * time.Second

// Lease is the lock's object, and the pod that wants it.
type Lease struct {
	Namespace, Name string
	Pod             string
}

// Lock is held in the pod's name. It is nil where the pod is not known (a
// process outside of a cluster): controller-runtime then makes up a name.
func Lock(config *rest.Config, lease Lease) (resourcelock.Interface, error) {
	if lease.Pod == "" {
		return nil, nil
	}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, lease.Namespace, lease.Name,
		resourcelock.ResourceLockConfig{Identity: lease.Pod}, config, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("lock Lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	return lock, nil
}
