package arch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

// dummyField is a setting of Envoy clusters that does not exist: in each of four
// files, what it takes is inserted at a place.
var dummyField = []struct{ file, place, insert string }{
	{"api/v1alpha1/backendpolicy.go", "type BackendPolicySpec struct {\n",
		"type BackendPolicySpec struct {\n\tDummy int32 `json:\"dummy,omitempty\"`\n"},
	{"pkg/gateway/model/model.go", "type ClusterPolicy struct {\n",
		"type ClusterPolicy struct {\n\tDummy int32\n"},
	{"pkg/gateway/policy.go", "(cluster model.ClusterPolicy, problem string) {\n",
		"(cluster model.ClusterPolicy, problem string) {\n\tcluster.Dummy = given.Spec.Dummy\n"},
	{"pkg/lbsync/envoy/cluster.go", "func cluster(a model.Assignment) *clusterv3.Cluster {\n",
		"func cluster(a model.Assignment) *clusterv3.Cluster {\n\tc := clusterWithoutDummy(a)\n\tif a.Policy != nil {\n\t\tc.AltStatName = fmt.Sprint(\"dummy \", a.Policy.Dummy)\n\t}\n\treturn c\n}\n\n" +
			"func clusterWithoutDummy(a model.Assignment) *clusterv3.Cluster {\n"},
}

// A new setting of Envoy clusters takes the API, the model, the reader of policies
// and the Envoy cluster, and no other file. The test compiles the project with such
// a setting and follows two values of it from BackendPolicies to Envoy clusters
// (testdata/policyfield_test.go). Nothing in the working tree changes.
func TestClusterSettingTakesFourFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles packages")
	}
	root, err := filepath.Abs("../..")
	testkit.Must(t, err)
	dir := t.TempDir()
	overlay := map[string]string{}
	replace := func(file, content string) {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		testkit.Must(t, os.WriteFile(path, []byte(content), 0o600))
		overlay[filepath.Join(root, file)] = path
	}
	for _, d := range dummyField {
		content, err := os.ReadFile(filepath.Join(root, d.file))
		testkit.Must(t, err)
		before, after, found := strings.Cut(string(content), d.place)
		if !found {
			t.Fatalf("%s has no %q any more: correct dummyField, and the checklist in CONTRIBUTING.md", d.file, d.place)
		}
		if d.file == "pkg/lbsync/envoy/cluster.go" && !strings.Contains(before, "\t\"fmt\"\n") {
			before = strings.Replace(before, "import (\n", "import (\n\t\"fmt\"\n", 1)
		}
		replace(d.file, before+d.insert+after)
	}
	probe, err := os.ReadFile("testdata/policyfield_test.go")
	testkit.Must(t, err)
	replace("internal/arch/overlay_test.go", string(probe))
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	testkit.Must(t, err)
	path := filepath.Join(dir, "overlay.json")
	testkit.Must(t, os.WriteFile(path, list, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-vet=off", "-overlay", path, "-run", "TestDummyReachesItsCluster", "./internal/arch")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestDummyReachesItsCluster") {
		t.Errorf("%v\n%s", err, out)
	}
}
