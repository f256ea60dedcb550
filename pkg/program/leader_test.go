package program

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// lead takes the Lease as a process in a pod would, and is killed then: it
// never gives the Lease back. It returns how long it took to lead.
func lead(t *testing.T, pod string, timeout time.Duration) (time.Duration, bool) {
	t.Helper()
	lock, err := LeaderElection{Namespace: "default", Name: "election", Pod: pod}.lock(envtestkit.Config(t))
	testkit.Must(t, err)
	ctx, kill := context.WithTimeout(t.Context(), timeout)
	began, led := time.Now(), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(led) }, OnStoppedLeading: func() {}},
	})
	testkit.Must(t, err)
	done := make(chan struct{})
	defer func() { // it logs until it ends, and other tests set the logger
		kill()
		<-done
	}()
	go func() {
		defer close(done)
		elector.Run(ctx)
	}()
	select {
	case <-led:
		return time.Since(began), true
	case <-ctx.Done():
		return 0, false
	}
}

// A process that died leads again at once when its pod restarts it; another
// pod waits until the Lease has ended.
func TestRestartedProcessLeadsAtOnce(t *testing.T) {
	if _, ok := lead(t, "hub-a", 10*time.Second); !ok {
		t.Fatal("nobody leads")
	}
	if took, ok := lead(t, "hub-a", 5*time.Second); !ok {
		t.Errorf("the restarted process does not lead after 5 s")
	} else {
		t.Logf("restarted: %v", took)
	}
	if _, ok := lead(t, "hub-b", 5*time.Second); ok {
		t.Error("another pod leads although the Lease has not ended")
	}
	lease, err := kubernetes.NewForConfigOrDie(envtestkit.Config(t)).CoordinationV1().Leases("default").Get(t.Context(), "election", metav1.GetOptions{})
	if err != nil || *lease.Spec.HolderIdentity != "hub-a" {
		t.Errorf("the Lease is held by %v, %v", lease.Spec.HolderIdentity, err)
	}
}
