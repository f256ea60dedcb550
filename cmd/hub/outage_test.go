package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// An API server that does not answer stops neither the hub nor a hub that is started meanwhile: it serves from the
// snapshot, and sends the edge nothing that it has. Once the API server answers, the hub leads again and takes changes.
func TestHubOutlivesItsAPIServer(t *testing.T) {
	f, dir := newFixture(t), t.TempDir()
	flags := []string{"--leader-elect", "--namespace=crossway-system", "--snapshot-dir=" + dir}
	f.startHub(flags...)
	at, _ := f.serve()
	time.Sleep(7 * time.Second) // until the last change is written
	f.snapshotIsPrivate(dir)
	before := f.counters(sent)

	thaw := envtestkit.Freeze(t)
	time.Sleep(20 * time.Second) // twice as long as a leader may take to renew its Lease
	f.serves(at)
	f.endsWithin(15 * time.Second)
	f.startHub(flags...)
	began := time.Now()
	testkit.Eventually(t, "a hub without an API server is ready", f.ready)
	t.Logf("ready %s after its start", time.Since(began).Round(100*time.Millisecond))
	testkit.Eventually(t, "the edge is back", func() bool {
		return strings.Contains(f.counters("control_plane.connected_state"), "connected_state: 1")
	})
	time.Sleep(7 * time.Second) // as long as learned shares may be kept, and more: nothing may come
	f.serves(at)
	if after := f.counters(sent); after != before {
		t.Errorf("the hub sent from its snapshot\n%s\nbefore\n%s", after, before)
	}

	thaw()
	f.make(routeTo("after", "after.example.com"))
	testkit.Eventually(t, "a route made after the outage", func() bool { status, _ := ask(at, "after.example.com", "/"); return status == 200 })
	testkit.Eventually(t, "the hub leads", func() bool {
		var lease coordinationv1.Lease
		testkit.Must(t, f.Get(t.Context(), client.ObjectKey{Namespace: "crossway-system", Name: "crossway-hub"}, &lease))
		return time.Since(lease.Spec.RenewTime.Time) < 3*time.Second
	})
}

// endsWithin tells the hub to end, which it must do although requests to its API server are outstanding.
func (f *fixture) endsWithin(limit time.Duration) {
	f.t.Helper()
	testkit.Must(f.t, f.hub.Process.Signal(syscall.SIGTERM))
	kill := time.AfterFunc(limit, func() { _ = f.hub.Process.Kill() })
	defer kill.Stop()
	if err := f.hub.Wait(); err != nil {
		f.t.Errorf("asked to end, the hub says %v (killed after %s)", err, limit)
	}
}

// serves checks that the hub is alive and ready, and a request is answered.
func (f *fixture) serves(at string) {
	f.t.Helper()
	if !f.says("/healthz") || !f.says("/readyz") {
		f.t.Errorf("healthy: %v, ready: %v", f.says("/healthz"), f.says("/readyz"))
	}
	if status, body := ask(at, "store.example.com", "/"); status != 200 {
		f.t.Errorf("%d %s", status, body)
	}
}

// snapshotIsPrivate checks that every kind has a file, for its owner only, and that none has the key of the edge CA.
func (f *fixture) snapshotIsPrivate(dir string) {
	f.t.Helper()
	files, err := os.ReadDir(dir)
	testkit.Must(f.t, err)
	if len(files) != len(servingKinds()) {
		f.t.Errorf("%d files, want one for each of %d kinds: %v", len(files), len(servingKinds()), files)
	}
	served := false
	for _, file := range files {
		info, err := file.Info()
		testkit.Must(f.t, err)
		if info.Mode() != 0o600 {
			f.t.Errorf("%s has mode %v", file.Name(), info.Mode())
		}
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		testkit.Must(f.t, err)
		served = served || strings.Contains(string(content), registration.XDSSecret)
		if strings.Contains(string(content), registration.EdgeCASecret) {
			f.t.Errorf("%s has the edge CA", file.Name())
		}
	}
	if !served {
		f.t.Error("no file has the serving certificate")
	}
}
