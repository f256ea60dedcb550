package arch

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "crossway.dev/crossway/"

// mayImport lists the pure packages and which packages of ours each may import.
// A rule is about the package itself, not about the packages below it.
var mayImport = map[string][]string{
	"api/v1alpha1":               {},
	"pkg/fleet":                  {},
	"pkg/batch":                  {},
	"pkg/gateway/model":          {"pkg/fleet"},
	"pkg/condition":              {"pkg/fleet", "api/v1alpha1"},
	"pkg/serviceexport":          {"pkg/fleet", "pkg/condition", "api/v1alpha1"},
	"pkg/membership":             {"pkg/fleet", "pkg/condition", "api/v1alpha1"},
	"pkg/serviceimport":          {"pkg/fleet", "pkg/serviceexport", "pkg/condition", "api/v1alpha1"},
	"pkg/registration":           {"pkg/fleet", "pkg/condition", "pkg/membership", "api/v1alpha1"},
	"pkg/check":                  {"pkg/fleet", "pkg/condition", "pkg/registration", "api/v1alpha1"},
	"pkg/replica":                {},
	"pkg/memberapi":              {"pkg/fleet", "pkg/registration", "pkg/serviceimport", "api/v1alpha1"},
	"pkg/gateway":                {"pkg/fleet", "pkg/gateway/model", "pkg/condition", "api/v1alpha1"},
	"pkg/lbsync":                 {"pkg/fleet", "pkg/gateway/model", "pkg/lbsync/traffic"},
	"pkg/lbsync/traffic":         {"pkg/fleet", "pkg/gateway/model"},
	"pkg/lbsync/envoy":           {"pkg/fleet", "pkg/gateway/model", "pkg/lbsync", "pkg/lbsync/traffic"},
	"pkg/lbsync/server/delta":    {},
	"pkg/fleetload":              {},
	"pkg/lbsync/rollout":         {"pkg/fleet", "pkg/gateway/model", "pkg/lbsync", "pkg/lbsync/envoy"},
	"pkg/lbsync/endpoints/state": {"pkg/fleet", "pkg/gateway/model", "pkg/condition", "pkg/lbsync", "pkg/lbsync/traffic", "pkg/registration", "api/v1alpha1"},
}

// ioPackages lists the packages that do I/O: controllers, servers, clients. Each
// may import its parent, all of sharedByIO, and the packages listed here. It never
// imports another I/O package: they are wired in cmd.
var ioPackages = map[string][]string{
	"pkg/serviceexport/agent":    nil,
	"pkg/serviceimport/hub":      {"pkg/registration"},
	"pkg/serviceimport/agent":    {"pkg/memberapi", "pkg/registration", "pkg/serviceexport"},
	"pkg/registration/agent":     nil,
	"pkg/registration/hub":       nil,
	"pkg/registration/inventory": nil,
	"pkg/memberapi/server":       {"pkg/registration"},
	"pkg/listener":               nil,
	"pkg/replica/link":           {"pkg/registration", "pkg/fleetload"},
	"pkg/gateway/reconciler":     {"pkg/lbsync", "pkg/lbsync/rollout", "pkg/registration", "pkg/serviceimport"},
	"pkg/lbsync/endpoints":       {"pkg/lbsync", "pkg/lbsync/envoy", "pkg/lbsync/traffic", "pkg/lbsync/endpoints/state", "pkg/fleetload"},
	"pkg/fleetload/reader":       nil,
	"pkg/lbsync/server":          {"pkg/lbsync/server/delta", "pkg/registration"},
	"pkg/condition/writer":       nil,
	"pkg/apply":                  nil,
	"pkg/program":                nil,
	"pkg/snapshot":               nil,
	"pkg/membership/gossip":      nil,

	"pkg/registration/renewal": nil,
	"pkg/membership/identity":  {"pkg/registration"},
}

var sharedByIO = []string{"api/v1alpha1", "pkg/fleet", "pkg/gateway/model", "pkg/condition", "pkg/condition/writer", "pkg/apply", "pkg/program", "pkg/batch", "pkg/listener", "pkg/replica"}

// neverInPure lists modules that pure packages never import: clients, clocks, logs
// and metrics. Types of objects (k8s.io/api, apimachinery, gateway-api, mcs-api)
// are plain data and allowed.
var neverInPure = []string{
	"k8s.io/client-go", "k8s.io/apiserver", "sigs.k8s.io/controller-runtime", "sigs.k8s.io/gateway-api/pkg/client", "sigs.k8s.io/mcs-api/pkg/client",
	"k8s.io/klog", "github.com/go-logr", "github.com/prometheus", "log", "log/slog", "net/http", "os", "os/exec", "context",
	"google.golang.org/grpc", "github.com/hashicorp", "math/rand", "math/rand/v2", "sync", "sync/atomic",
}

// mayLock is the one pure package with a lock: its Inbox is how others need none.
const mayLock = "pkg/batch"

// protobuf lists modules that, among pure packages, only those of mayImportProtobuf
// may import.
var protobuf = []string{"google.golang.org/protobuf", "google.golang.org/genproto", "github.com/envoyproxy", "github.com/cncf"}

// mayImportProtobuf lists the pure packages that make Envoy's messages.
var mayImportProtobuf = []string{"pkg/lbsync/envoy", "pkg/lbsync/server/delta"}

type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]listed{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	return all
}

func under(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") })
}

// violations returns the imports of a package that its rule forbids, and why.
func violations(pkg string, imports []string) []string {
	allowed, isPure := mayImport[pkg]
	extra, isIO := ioPackages[pkg]
	var wrong []string
	for _, path := range imports {
		ours, isOurs := strings.CutPrefix(path, module)
		switch {
		case isOurs && strings.HasPrefix(ours, "cmd/"):
			wrong = append(wrong, path+" (a program is never imported)")
		case isOurs && isPure && !slices.Contains(allowed, ours):
			wrong = append(wrong, path+" (not in its list in mayImport)")
		case isOurs && isIO && !slices.Contains(sharedByIO, ours) && !slices.Contains(extra, ours) && ours != filepath.Dir(pkg):
			wrong = append(wrong, path+" (an I/O package imports its parent and the shared packages, never another I/O package)")
		case isOurs && strings.HasPrefix(pkg, "pkg/") && strings.HasPrefix(ours, "internal/"):
			wrong = append(wrong, path+" (product code never imports test fixtures)")
		case pkg == mayLock && path == "sync":
		case !isOurs && isPure && under(path, neverInPure):
			wrong = append(wrong, path+" (a pure package does no I/O; the packages below it do)")
		case !isOurs && isPure && !slices.Contains(mayImportProtobuf, pkg) && under(path, protobuf):
			wrong = append(wrong, path+" (protobuf only in the packages of mayImportProtobuf)")
		}
	}
	return wrong
}

func TestWhoMayImportWhom(t *testing.T) {
	for name, p := range packages(t) {
		if strings.HasPrefix(name, "pkg/") {
			_, isPure := mayImport[name]
			if _, isIO := ioPackages[name]; !isPure && !isIO {
				t.Errorf("%s has no rule: add it to mayImport if it is pure, to ioPackages if it does I/O, and to docs/architecture.md", name)
			}
		}
		for _, wrong := range violations(name, p.Imports) {
			t.Errorf("%s imports %s", name, wrong)
		}
	}
}

// Each rule forbids something.
func TestRulesForbid(t *testing.T) {
	for name, path := range map[string]string{
		"pkg/gateway":             module + "pkg/lbsync",
		"pkg/lbsync":              "google.golang.org/protobuf/proto",
		"pkg/serviceimport":       "sigs.k8s.io/controller-runtime/pkg/client",
		"pkg/serviceexport/agent": module + "pkg/serviceimport/agent",
		"pkg/lbsync/server":       module + "cmd/hub",
		"pkg/fleet":               "log/slog",
	} {
		if len(violations(name, []string{path})) == 0 {
			t.Errorf("%s may import %s", name, path)
		}
	}
}

// Pure packages start no goroutine and read no clock: time is an argument.
func TestPurePackagesHaveNoClockAndNoGoroutine(t *testing.T) {
	for name, p := range packages(t) {
		if _, isPure := mayImport[name]; !isPure {
			continue
		}
		for _, goFile := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, goFile), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: %s starts a goroutine", name, set.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "Tick", "NewTimer", "NewTicker"}, n.Sel.Name) {
						t.Errorf("%s: %s reads the clock", name, set.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
}

// Every package has a doc.go that says what it owns.
func TestEveryPackageHasADocFile(t *testing.T) {
	for name, p := range packages(t) {
		if strings.HasPrefix(name, "cmd/") || strings.Contains(name, "/cmd/") {
			continue // a program may have it above package main
		}
		if len(p.GoFiles) > 0 && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", name)
		}
	}
}
