package main

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
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

// snapshotIsPrivate checks that every kind has a file, for its owner only, and that none has the key of the edge CA or
// its Secret. The name of the CA is no secret: conditions of EdgePools say it.
func (f *fixture) snapshotIsPrivate(dir string) {
	f.t.Helper()
	files, err := os.ReadDir(dir)
	testkit.Must(f.t, err)
	if len(files) != len(servingKinds()) {
		f.t.Errorf("%d files, want one for each of %d kinds: %v", len(files), len(servingKinds()), files)
	}
	ca, serving := f.privateKey(registration.EdgeCASecret), f.privateKey(registration.XDSSecret)
	served := false
	for _, file := range files {
		info, err := file.Info()
		testkit.Must(f.t, err)
		if info.Mode() != 0o600 {
			f.t.Errorf("%s has mode %v", file.Name(), info.Mode())
		}
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		testkit.Must(f.t, err)
		served = served || hasKey(content, serving)
		if hasKey(content, ca) {
			f.t.Errorf("%s has the key of the edge CA", file.Name())
		}
		if strings.HasPrefix(file.Name(), "Secret.") && bytes.Contains(content, []byte(registration.EdgeCASecret)) {
			f.t.Errorf("%s has the Secret of the edge CA", file.Name())
		}
	}
	if !served {
		f.t.Error("no file has the key of the serving certificate")
	}
}

// privateKey is that of a TLS Secret of the hub, PEM.
func (f *fixture) privateKey(name string) []byte {
	f.t.Helper()
	var secret corev1.Secret
	testkit.Must(f.t, f.Get(f.t.Context(), client.ObjectKey{Namespace: "crossway-system", Name: name}, &secret))
	return secret.Data[corev1.TLSPrivateKeyKey]
}

// hasKey says whether a file has a private key in a form in which objects hold one: a line of its PEM, as protobuf and
// as text in JSON have it; the PEM in base64, as a Secret in JSON has it; or its bytes alone.
func hasKey(content, key []byte) bool {
	block, _ := pem.Decode(key)
	line := bytes.Split(key, []byte("\n"))[2] // the first lines say mostly of which kind the key is
	return slices.ContainsFunc([][]byte{line, []byte(base64.StdEncoding.EncodeToString(key)), block.Bytes},
		func(form []byte) bool { return bytes.Contains(content, form) })
}
