package install

import (
	"context"
	"io"
	"path/filepath"
)

// ConformancePrograms are the official conformance suite of the Gateway API, a
// test program, and the program of its test pods that the lab lacks.
type ConformancePrograms struct{ Suite, Echo string }

// conformancePrograms are what test/conformance/suite pins, with the time each
// took to build on 2 cores with an empty build cache.
var conformancePrograms = []struct {
	name, pkg, cold string
	test            bool
}{
	{"echo-basic", "sigs.k8s.io/gateway-api/conformance/echo-basic", "20 s", false},
	{"conformance.test", ".", "2 min", true},
}

// Conformance returns the suite and the programs of its pods, building what is
// missing.
func Conformance(ctx context.Context, progress io.Writer) (ConformancePrograms, error) {
	i, unlock, err := lockedInstaller(ctx, progress)
	if err != nil {
		return ConformancePrograms{}, err
	}
	defer unlock()
	module := filepath.Join(i.root, "test/conformance/suite")
	version, err := key(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"), filepath.Join(module, "suite_test.go"))
	if err != nil {
		return ConformancePrograms{}, err
	}
	dir := filepath.Join(i.cache, "conformance-"+version)
	for _, p := range conformancePrograms {
		if exists(filepath.Join(dir, p.name)) {
			continue
		}
		err := i.step("building "+p.name+" (about "+p.cold+" on 2 cores)", func() error {
			return i.build(ctx, build{module: module, pkg: p.pkg, test: p.test, flags: []string{"-trimpath", "-ldflags", "-s -w"}, out: filepath.Join(dir, p.name)})
		})
		if err != nil {
			return ConformancePrograms{}, err
		}
	}
	return ConformancePrograms{Suite: filepath.Join(dir, "conformance.test"), Echo: filepath.Join(dir, "echo-basic")}, nil
}
