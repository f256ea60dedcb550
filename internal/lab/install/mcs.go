package install

import (
	"context"
	"io"
	"os"
	"path/filepath"
)

// The official conformance suite of the Multi-Cluster Services API. It is a Go module
// inside of another one, which it replaces by its parent directory, so no go.mod can pin
// it: a commit does. MCS_API_REPOSITORY may name a mirror, as the commit is its content.
const (
	MCSCommit     = "ded161af6ea9596cd9e878c61ed4f4e8d5cf8401"
	mcsRepository = "https://github.com/kubernetes-sigs/mcs-api"
)

// MCSConformance returns the suite, a test program, building it if it is missing.
func MCSConformance(ctx context.Context, progress io.Writer) (suite string, err error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(i.cache, "mcs-conformance-"+MCSCommit[:12])
	suite = filepath.Join(dir, "mcs-conformance.test")
	if exists(suite) {
		return suite, nil
	}
	return suite, i.step("building the conformance suite of the Multi-Cluster Services API (about 1 min on 2 cores)", func() error {
		source := filepath.Join(dir, "source")
		if err := checkOut(ctx, source); err != nil {
			return err
		}
		return i.build(ctx, build{module: filepath.Join(source, "conformance"), pkg: ".", test: true, flags: []string{"-trimpath", "-vet=off", "-ldflags", "-s -w"}, out: suite})
	})
}

// checkOut makes a directory that has the suite's source.
func checkOut(ctx context.Context, dir string) error {
	repository := os.Getenv("MCS_API_REPOSITORY")
	if repository == "" {
		repository = mcsRepository
	}
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"git", "init", "--quiet"},
		{"git", "fetch", "--quiet", "--depth", "1", repository, MCSCommit},
		{"git", "checkout", "--quiet", MCSCommit},
	} {
		if err := run(ctx, dir, nil, command...); err != nil {
			return err
		}
	}
	return nil
}
