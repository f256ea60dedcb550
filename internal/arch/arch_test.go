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

// What of ours each room may import; "/..." is a whole tree. A room is its own
// package, not its children.
var mayImport = map[string][]string{
	"api/v1alpha1":      {},
	"pkg/fleet":         {},
	"pkg/batch":         {},
	"pkg/gateway/model": {"pkg/fleet"},
	"pkg/condition":     {"pkg/fleet"},
	"pkg/serviceexport": {"pkg/fleet", "pkg/condition", "api/v1alpha1"},
	"pkg/membership":    {"pkg/fleet", "pkg/condition", "api/v1alpha1"},
	"pkg/serviceimport": {"pkg/fleet", "pkg/serviceexport", "pkg/condition", "api/v1alpha1"},
	"pkg/registration":  {"pkg/fleet", "pkg/condition", "api/v1alpha1"},
	"pkg/gateway":       {"pkg/fleet", "pkg/gateway/model", "pkg/condition", "api/v1alpha1"},
	"pkg/lbsync":        {"pkg/fleet", "pkg/gateway/model"},
	"pkg/lbsync/envoy":  {"pkg/fleet", "pkg/gateway/model", "pkg/lbsync"},
}

// Shells touch the world. Each may import its parent and what all shells may,
// and what is told here beside that; never another shell.
var shells = map[string][]string{
	"pkg/serviceexport/agent": nil,
	"pkg/serviceimport/hub":   {"pkg/registration"},
	"pkg/serviceimport/agent": {"pkg/registration"},
	"pkg/registration/hub":    nil,
	"pkg/gateway/reconciler":  {"pkg/lbsync", "pkg/lbsync/envoy"},
	"pkg/lbsync/endpoints":    {"pkg/lbsync/envoy", "pkg/registration"},
	"pkg/lbsync/server":       nil,
	"pkg/condition/writer":    nil,
	"pkg/apply":               nil,
	"pkg/program":             nil,
}

var allShells = []string{"api/v1alpha1", "pkg/fleet", "pkg/gateway/model", "pkg/condition", "pkg/condition/writer", "pkg/apply", "pkg/program", "pkg/batch"}

// What pure rooms never import from outside: clients, clocks, logs, metrics,
// and protobuf except for lbsync/envoy. Types of objects (k8s.io/api,
// apimachinery, gateway-api, mcs-api) are plain data.
var neverInPure = []string{
	"k8s.io/client-go", "sigs.k8s.io/controller-runtime", "sigs.k8s.io/gateway-api/pkg/client", "sigs.k8s.io/mcs-api/pkg/client",
	"k8s.io/klog", "github.com/go-logr", "github.com/prometheus", "log", "log/slog", "net/http", "os", "os/exec", "context",
	"google.golang.org/grpc", "github.com/hashicorp", "math/rand", "math/rand/v2",
}

var protobuf = []string{"google.golang.org/protobuf", "github.com/envoyproxy", "github.com/cncf"}

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

// violations of one package's imports.
func violations(room string, imports []string) []string {
	pure, isPure := mayImport[room]
	extra, isShell := shells[room]
	var wrong []string
	for _, path := range imports {
		ours, isOurs := strings.CutPrefix(path, module)
		switch {
		case isOurs && strings.HasPrefix(ours, "cmd/"):
			wrong = append(wrong, path+" (a program is never imported)")
		case isOurs && isPure && !slices.Contains(pure, ours):
			wrong = append(wrong, path+" (not one of its rooms)")
		case isOurs && isShell && !slices.Contains(allShells, ours) && !slices.Contains(extra, ours) && ours != filepath.Dir(room):
			wrong = append(wrong, path+" (a shell imports its parent and the shared rooms, never another shell)")
		case isOurs && strings.HasPrefix(room, "pkg/") && strings.HasPrefix(ours, "internal/"):
			wrong = append(wrong, path+" (the product never imports its fixtures)")
		case !isOurs && isPure && under(path, neverInPure):
			wrong = append(wrong, path+" (a parent computes; its children touch the world)")
		case !isOurs && isPure && room != "pkg/lbsync/envoy" && under(path, protobuf):
			wrong = append(wrong, path+" (protobuf only in pkg/lbsync/envoy)")
		}
	}
	return wrong
}

func TestWhoMayImportWhom(t *testing.T) {
	for room, p := range packages(t) {
		if strings.HasPrefix(room, "pkg/") {
			_, isPure := mayImport[room]
			if _, isShell := shells[room]; !isPure && !isShell {
				t.Errorf("%s is neither a pure room nor a shell: give it its rule here and in docs/architecture.md", room)
			}
		}
		for _, wrong := range violations(room, p.Imports) {
			t.Errorf("%s imports %s", room, wrong)
		}
	}
}

// The rules can fail.
func TestRulesRefuse(t *testing.T) {
	for room, path := range map[string]string{
		"pkg/gateway":             module + "pkg/lbsync",
		"pkg/lbsync":              "google.golang.org/protobuf/proto",
		"pkg/serviceimport":       "sigs.k8s.io/controller-runtime/pkg/client",
		"pkg/serviceexport/agent": module + "pkg/serviceimport/agent",
		"pkg/lbsync/server":       module + "cmd/hub",
		"pkg/fleet":               "log/slog",
	} {
		if len(violations(room, []string{path})) == 0 {
			t.Errorf("%s may import %s", room, path)
		}
	}
}

// Pure rooms have no goroutine and ask no clock; time is an argument.
func TestPureRoomsHaveNoClockAndNoGoroutine(t *testing.T) {
	for room, p := range packages(t) {
		if _, isPure := mayImport[room]; !isPure {
			continue
		}
		for _, name := range p.GoFiles {
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: %s starts a goroutine", room, set.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "Tick", "NewTimer", "NewTicker"}, n.Sel.Name) {
						t.Errorf("%s: %s asks the clock", room, set.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
}

// Every package says what it owns.
func TestEveryPackageHasADocFile(t *testing.T) {
	for room, p := range packages(t) {
		if strings.HasPrefix(room, "cmd/") || strings.Contains(room, "/cmd/") {
			continue // a program says it above package main
		}
		if len(p.GoFiles) > 0 && !slices.Contains(p.GoFiles, "doc.go") {
			t.Errorf("%s has no doc.go", room)
		}
	}
}
