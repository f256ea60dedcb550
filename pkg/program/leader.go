package program

import (
	"fmt"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
)

// renewDeadline is controller-runtime's default for the time in which a leader
// must renew its Lease. The lock's client takes its timeout from it.
const renewDeadline = 10 * time.Second

// LeaderElection is how replicas of a program elect the one that writes.
type LeaderElection struct {
	Enabled bool
	// Namespace and Name are those of the Lease.
	Namespace, Name string
	// Pod is the name of the replica's pod: the leader is a pod, not a process.
	// A process that is restarted in its pod leads again at once, instead of
	// after 15 s, when the Lease of the dead process ends. Two processes of one
	// pod never run at the same time. Empty: controller-runtime makes up a name.
	Pod string
}

// Configure sets leader election in a manager's options. The process must end
// when the manager does: the Lease is given back then.
func (l LeaderElection) Configure(options *ctrl.Options, config *rest.Config) error {
	lock, err := l.lock(config)
	if err != nil {
		return err
	}
	options.LeaderElection = l.Enabled
	options.LeaderElectionID = l.Name
	options.LeaderElectionNamespace = l.Namespace
	options.LeaderElectionReleaseOnCancel = true
	options.LeaderElectionResourceLockInterface = lock
	return nil
}

func (l LeaderElection) lock(config *rest.Config) (resourcelock.Interface, error) {
	if l.Pod == "" {
		return nil, nil
	}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, l.Namespace, l.Name,
		resourcelock.ResourceLockConfig{Identity: l.Pod}, config, renewDeadline)
	if err != nil {
		return nil, fmt.Errorf("make the leader election lock %s/%s: %w", l.Namespace, l.Name, err)
	}
	return lock, nil
}

// IsLeader returns whether elected, which is a manager's Elected, is closed. Nil
// is a program without leader election.
func IsLeader(elected <-chan struct{}) bool {
	if elected == nil {
		return true
	}
	select {
	case <-elected:
		return true
	default:
		return false
	}
}
