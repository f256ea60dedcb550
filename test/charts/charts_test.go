package charts

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	ctrl "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // clients of controller-runtime ask for one
	envtestkit.Main(m)
}

// root is the project's directory, seen from this package.
const root = "../.."

// usual are the values without which a chart cannot be rendered.
var usual = map[string]string{
	"hub":          "region=us,hubCIDRs={10.10.0.0/16,10.96.0.0/16}",
	"member-agent": "",
	"edge":         "pool=us,region=us,zone=us-a,hub.address=10.96.0.10",
}

var programs = sync.OnceValues(func() (install.Programs, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute) // a cold machine builds first
	defer cancel()
	return install.Ensure(ctx, os.Stderr)
})

// helm runs helm and returns both of its outputs together.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	p, err := programs()
	testkit.Must(t, err)
	cmd := exec.CommandContext(t.Context(), p.Helm, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// render is a chart's manifests with its usual values and these.
func render(t *testing.T, chart, values string) string {
	t.Helper()
	out, err := helm(t, "template", "crossway-"+chart, filepath.Join(root, "charts", chart), "--namespace", "crossway-system",
		"--kube-version", install.KubernetesVersion, "--set", usual[chart], "--set", values)
	if err != nil {
		t.Fatalf("render charts/%s: %v\n%s", chart, err, out)
	}
	return out
}

// objects are the objects of a manifest, in its order.
func objects(t *testing.T, manifest string) []unstructured.Unstructured {
	t.Helper()
	decoder := utilyaml.NewYAMLToJSONDecoder(strings.NewReader(manifest))
	var all []unstructured.Unstructured
	for {
		var o unstructured.Unstructured
		err := decoder.Decode(&o.Object)
		if err != nil {
			break
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
	return all
}

func find(t *testing.T, manifest, kind, name string) unstructured.Unstructured {
	t.Helper()
	for _, o := range objects(t, manifest) {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("no %s %s is rendered", kind, name)
	return unstructured.Unstructured{}
}

// into converts a rendered object to its Go type, and fails on fields that the type does not have.
func into(t *testing.T, o unstructured.Unstructured, target any) {
	t.Helper()
	data, err := json.Marshal(o.Object)
	if err == nil {
		err = yaml.UnmarshalStrict(data, target)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
	}
}

// kubectl runs kubectl as the administrator, with text on its standard input.
func kubectl(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), envtestkit.Programs(t).Path("kubectl"), append(args, "--kubeconfig", envtestkit.Kubeconfig(t))...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// apply applies a manifest and keeps it; the tests of this package share one cluster.
func apply(t *testing.T, manifest string) {
	t.Helper()
	if out, err := kubectl(t, manifest, "apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
}

const systemNamespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: crossway-system}\n"

// Each chart passes helm lint, and a real API server accepts all that it renders,
// with the required values and with all values.
func TestChartsAreAccepted(t *testing.T) {
	apply(t, systemNamespace)
	for _, c := range []struct{ chart, values string }{
		{"hub", ""},
		{"hub", "secretNamespaces={default,crossway-system},personas.edgePools={us,eu},topologySpread=null,priorityClassName=system-cluster-critical,networkPolicy.xds[0].ipBlock.cidr=10.0.0.0/8,networkPolicy.metrics=null,xds.names={hub.example.com,192.0.2.7},xds.service.type=NodePort,xds.service.nodePort=30180,gatewayClasses.regions={us,eu},gossip.address=hub.example.com:18002,gossip.nodePort=30182,networkPolicy.gossip[0].ipBlock.cidr=10.0.0.0/8,replicas=2,podAnnotations.a=b,nodeSelector.a=b,tolerations[0].operator=Exists,extraArgs={--x},extraEnv[0].name=GOGC,imagePullSecrets[0].name=p"},
		{"hub", "networkPolicy.enabled=false,gossip.enabled=false,xds.service.loadBalancerClass=example.com/internal,xds.service.loadBalancerSourceRanges={192.0.2.0/24},xds.service.annotations.a=b,gatewayClasses.global=false,personas.create=false"},
		{"member-agent", ""},
		{"member-agent", "gossip.hostPort=18002,networkPolicy.gossip[0].ipBlock.cidr=10.0.0.0/8"},
		{"member-agent", "gossip.listen=false,priorityClassName=system-cluster-critical,networkPolicy.metrics=null,replicas=2,podAnnotations.a=b,nodeSelector.a=b,tolerations[0].operator=Exists,extraArgs={--x},imagePullSecrets[0].name=p,personas.create=false"},
		{"edge", ""},
		{"edge", "hostNetwork=false,runAsRoot=true,priorityClassName=system-node-critical,metrics.port=1024,networkPolicy.metrics=null"},
		{"edge", "metrics.sources={10.0.0.0/8,fd00::/8}"},
		{"edge", "hostNetwork=false,regionNodeSelector=false,concurrency=2,metrics.enabled=false,drain.announceSeconds=0,certificateSecret=other,nodeSelector.a=b,tolerations[0].operator=Exists,extraArgs={--x},podAnnotations.a=b,rollout.maxSurge=50%,imagePullSecrets[0].name=p"},
		// What YAML 1.1 takes for booleans and numbers are names here.
		{"edge", "pool=no,region=on,zone=y"},
	} {
		t.Run(c.chart+" "+c.values, func(t *testing.T) {
			if out, err := helm(t, "lint", "--strict", filepath.Join(root, "charts", c.chart), "--set", usual[c.chart], "--set", c.values); err != nil {
				t.Errorf("lint: %v\n%s", err, out)
			}
			apply(t, render(t, c.chart, c.values))
			// A load balancer's class cannot change, so the next case starts anew.
			if out, err := kubectl(t, "", "delete", "services", "--all", "--namespace", "crossway-system"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// The README of a chart and NOTES.txt name the next step; helm prints the notes.
func TestNotesSayTheNextStep(t *testing.T) {
	for chart, want := range map[string][]string{
		"hub":          {"rollout status deployment/crossway-hub", "crossway edge certificate --pool us --region us --zone us-a"},
		"member-agent": {"crossway token create NAME", "crossway accept NAME", "join-status"},
		"edge":         {"crossway edge certificate --pool us --region us --zone us-a --namespace crossway-system", "kubectl get edgepool us", "net.ipv4.ip_unprivileged_port_start=0", "metrics.sources"},
	} {
		out, err := helm(t, "install", "crossway-"+chart, filepath.Join(root, "charts", chart), "--dry-run=client", "--take-ownership", "--kubeconfig", envtestkit.Kubeconfig(t),
			"--namespace", "crossway-system", "--set", usual[chart])
		if err != nil {
			t.Errorf("%s: %v\n%s", chart, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("the notes of charts/%s do not say %q", chart, w)
			}
		}
	}
}

// A wrong value is refused before anything is rendered, by its name.
func TestWrongValuesAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ chart, values, want string }{
		{"hub", "replica=2", "'replica' not allowed"},
		{"hub", "replicas=-1", "/replicas"},
		{"hub", "region=US West", "/region"},
		{"hub", "hubCIDRs={10.0.0.0}", "/hubCIDRs/0"},
		{"hub", "hubCIDRs=null", "kubectl cluster-info dump"},
		{"hub", "secretNamespaces={Shop}", "/secretNamespaces/0"},
		{"hub", "networkPolicy.health=x", "'health' not allowed"},
		{"hub", "hubCIDRs={10.0.0.0/8,10.0.0.0/8}", "/hubCIDRs"},
		{"hub", "xds.names={https://hub}", "/xds/names/0"},
		{"hub", "xds.service.type=ExternalName", "/xds/service/type"},
		{"hub", "xds.service.nodePort=70000", "/xds/service/nodePort"},
		{"hub", "logLevel=loud", "/logLevel"},
		{"hub", "gatewayClasses.regions={US}", "/gatewayClasses/regions/0"},
		{"hub", "image.repository=", "/image/repository"},
		{"hub", "personas=no", "/personas"},
		{"member-agent", "cluster=us-west", "'cluster' not allowed"},
		{"member-agent", "hub.kubeconfigSecret=x", "'hub' not allowed"},
		{"edge", "pool=", "/pool"},
		{"edge", "region=", "/region"},
		{"edge", "zone=", "/zone"},
		{"edge", "zone=us_a", "/zone"},
		{"edge", "hub.address=", "/hub/address"},
		{"edge", "hub.port=0", "/hub/port"},
		{"edge", "image.tag=distroless-v1.40.0", "/image/tag"},
		{"edge", "drain.seconds=0", "/drain/seconds"},
		{"edge", "drain.announceSeconds=soon", "/drain/announceSeconds"},
		{"edge", "overload.maxConnections=0", "/overload/maxConnections"},
		{"edge", "metrics.port=0", "/metrics/port"},
		{"edge", "metrics.sources={10.0.0.1}", "/metrics/sources/0"},
		{"edge", "runAsRoot=no-thanks", "/runAsRoot"},
		{"edge", "rollout.maxSurge=half", "/rollout/maxSurge"},
		{"edge", "logLevel=loud", "/logLevel"},
		{"edge", "replicas=many", "/replicas"},
	} {
		out, err := helm(t, "template", filepath.Join(root, "charts", c.chart), "--set", usual[c.chart], "--set", c.values)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("charts/%s with %s: %v\n%s\nwant a refusal that says %q", c.chart, c.values, err, out, c.want)
		}
	}
}

// What users read names no registry, and no chart uses the tag latest.
func TestImagesComeFromValues(t *testing.T) {
	for chart, want := range map[string]string{
		"hub": "crossway/hub:0.1.0", "member-agent": "crossway/member-agent:0.1.0", "edge": "envoyproxy/envoy:v1.40.0 crossway/crossway:0.1.0",
	} {
		var images []string
		for _, found := range regexp.MustCompile(`image: "?([^"\n]*)`).FindAllStringSubmatch(render(t, chart, ""), -1) {
			images = append(images, found[1])
		}
		if strings.Join(images, " ") != want {
			t.Errorf("charts/%s runs %v, want %s", chart, images, want)
		}
		if out := render(t, chart, "image.repository=r.example.com/a/b,image.tag=v9"); !strings.Contains(out, `image: "r.example.com/a/b:v9"`) {
			t.Errorf("charts/%s ignores its image values", chart)
		}
	}
}

// A hub accepts the examples. A member cluster accepts their part for members (it
// has the same CRDs).
func TestExamplesAreAccepted(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	files = append(files, filepath.Join(root, "examples/member/export.yaml"),
		filepath.Join(root, "examples/lab/hub.yaml"), filepath.Join(root, "examples/lab/member.yaml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		testkit.Must(t, err)
		apply(t, string(data))
	}
}

// The shell scripts of the project, and those that charts run.
func TestScriptsPassShellcheck(t *testing.T) {
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed; make lint installs and runs it")
	}
	for _, pattern := range []string{"hack/*.sh", "charts/*/files/*.sh", ".ci/run"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %d files, %v", pattern, len(files), err)
			continue
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), path, append([]string{"--severity=style"}, files...)...)
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v\n%s", pattern, err, out.String())
		}
	}
}
