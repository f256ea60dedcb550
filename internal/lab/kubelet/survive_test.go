package kubelet

import (
	"context"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"crossway.dev/crossway/internal/lab/network"
	"crossway.dev/crossway/internal/testkit"
)

// start runs the workers of a node without pod network on a fake API server.
// It starts no process: its images are unknown, or their pods lack something.
func start(t *testing.T, client *fake.Clientset) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	k, err := New(Config{
		Name: "edge", Network: &network.Node{Name: "edge", NS: netns.None(), Address: netip.MustParseAddr("172.18.0.10")},
		Client: client, Informers: factory, Images: Images{"known": {Entrypoint: []string{"true"}}}, Dir: t.TempDir(), LogDir: t.TempDir(),
	})
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	factory.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		k.stop()
	})
}

func pod(name string, hostNetwork bool) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{
			NodeName: "edge", HostNetwork: hostNetwork, ServiceAccountName: "default",
			Containers: []v1.Container{{Name: "main", Image: "nobody/knows"}},
		},
	}
}

// await waits until the first container of a pod waits for this reason, with a
// message that contains the text.
func await(t *testing.T, client *fake.Clientset, name, reason, text string) {
	t.Helper()
	var last v1.PodStatus
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		p, err := client.CoreV1().Pods("ns").Get(t.Context(), name, metav1.GetOptions{})
		testkit.Must(t, err)
		last = p.Status
		for _, c := range last.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == reason && strings.Contains(w.Message, text) {
				return
			}
		}
	}
	t.Fatalf("pod %s: want a container that waits with reason %s and %q; status: %+v", name, reason, text, last)
}

// The node has no pod network. A pod that needs one is bound to it all the same
// (spec.nodeName): it stays Pending with the reason, and its neighbours run.
func TestPodWithoutNetwork(t *testing.T) {
	client := fake.NewClientset(pod("plain", false), pod("host", true))
	start(t, client)
	await(t, client, "plain", "NoPodNetwork", "hostNetwork")
	await(t, client, "host", "ErrImagePull", `"nobody/knows"`)
	p, err := client.CoreV1().Pods("ns").Get(t.Context(), "plain", metav1.GetOptions{})
	testkit.Must(t, err)
	if p.Status.Phase != v1.PodPending || p.Status.Reason != "NoPodNetwork" {
		t.Errorf("the pod is %s for %q", p.Status.Phase, p.Status.Reason)
	}
	var events []v1.Event
	for deadline := time.Now().Add(5 * time.Second); len(events) == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		list, err := client.CoreV1().Events("ns").List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		events = slices.DeleteFunc(list.Items, func(e v1.Event) bool { return e.InvolvedObject.Name != "plain" || e.Reason != "NoPodNetwork" })
	}
	if len(events) == 0 {
		t.Error("there is no Event of the pod")
	}
}

// A panic of the lab's own code, wherever a pod leads it to one, is reported on
// that pod, and the others go on.
func TestPanicStaysWithItsPod(t *testing.T) {
	withToken := pod("token", true)
	withToken.Spec.Volumes = []v1.Volume{{Name: "token", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
		Sources: []v1.VolumeProjection{{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}}
	client := fake.NewClientset(withToken, pod("sound", true))
	client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) { panic("of the volume") })
	patches := 0
	client.PrependReactor("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		if patches++; patches < 3 {
			panic("of the status")
		}
		return false, nil, nil
	})
	start(t, client)
	await(t, client, "token", "KubeletError", "panicked: of the volume")
	await(t, client, "sound", "ErrImagePull", `"nobody/knows"`)

	late := pod("late", true)
	late.Spec.Containers[0].Image = "known"
	late.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "absent"}}}}
	if _, err := client.CoreV1().Pods("ns").Create(t.Context(), late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, client, "late", "CreateContainerConfigError", `secret "absent" not found`)
}

func TestGuard(t *testing.T) {
	count := func(m map[string]int) { m["a"]++ }
	err := guard(func() error {
		count(nil)
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("%v", err)
	}
	if err := (&sandboxed{}).exec(t.Context(), execution{}); err == nil {
		t.Error("an empty command must be an error")
	}
}

// Sidecars would keep their pod in its init phase for ever.
func TestSidecarIsReported(t *testing.T) {
	p := pod("sidecar", true)
	always := v1.ContainerRestartPolicyAlways
	p.Spec.InitContainers = []v1.Container{{Name: "proxy", Image: "nobody/knows", RestartPolicy: &always}}
	client := fake.NewClientset(p)
	start(t, client)
	await(t, client, "sidecar", "Unsupported", "init container proxy")
}

// A node without pod network takes pods with hostNetwork only, however few
// pods it has; a pod that only such nodes may take has that in its reason.
func TestSchedulerLeavesNodesWithoutPodNetwork(t *testing.T) {
	client := fake.NewClientset()
	var nodes []*v1.Node
	for name, available := range map[string]v1.ConditionStatus{"hub": v1.ConditionFalse, "edge": v1.ConditionTrue} {
		nodes = append(nodes, &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
			Status:     v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeNetworkUnavailable, Status: available}}},
		})
	}
	s, err := NewScheduler(client, informers.NewSharedInformerFactory(client, 0), nodes, nil)
	testkit.Must(t, err)
	for _, name := range []string{"a", "b", "c"} {
		if node, reason := s.choose(pod(name, false)); node != "hub" {
			t.Errorf("plain pod %s goes to %q (%s)", name, node, reason)
		}
	}
	if node, _ := s.choose(pod("d", true)); node != "edge" {
		t.Errorf("the pod with hostNetwork goes to %q", node)
	}
	pinned := pod("e", false)
	pinned.Spec.NodeSelector = map[string]string{"name": "edge"}
	if node, reason := s.choose(pinned); node != "" || !strings.Contains(reason, "hostNetwork") {
		t.Errorf("the pod that selects edge goes to %q (%s)", node, reason)
	}
}

// An error may quote a whole command line; what a status says of it is short,
// and what follows the cut is left out whole.
func TestShorten(t *testing.T) {
	if got := shorten(strings.Repeat("ä", 600*1024)); len(got) > maxMessage+8 || !strings.HasSuffix(got, "ä ...") {
		t.Errorf("%d bytes: %q", len(got), got[len(got)-10:])
	}
}

// A volume whose items contradict each other fails again and again, and leaves
// nothing behind.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"..1", "..2", "..3"} {
		if err := writeAtomic(dir, version, map[string]file{"a": {[]byte("1"), 0o600}, "a/b": {[]byte("2"), 0o600}}); err == nil {
			t.Fatal("a file cannot be a directory, too")
		}
	}
	var left []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		left = append(left, path)
		return err
	}); err != nil || len(left) != 1 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// A path with ".." stays inside the container's root.
func TestPathStaysInside(t *testing.T) {
	s := sandbox{root: "/lab/root"}
	for path, want := range map[string]string{"/a": "/lab/root/a", "../../a": "/lab/root/a", "/../../a": "/lab/root/a", "/": "/lab/root"} {
		if got := s.inside(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A line that never ends is cut; the rest is the next line.
func TestLogCutsLongLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	log, err := openLog(name)
	testkit.Must(t, err)
	part := []byte(strings.Repeat("x", 1000))
	for range 200 {
		if _, err := log.Write(part); err != nil {
			t.Fatal(err)
		}
		if len(log.partial) >= maxLine {
			t.Fatalf("%d bytes are held back", len(log.partial))
		}
	}
	testkit.Must(t, log.Close())
	data, err := os.ReadFile(name)
	testkit.Must(t, err)
	if lines, xs := strings.Count(string(data), "\n"), strings.Count(string(data), "x"); lines != 4 || xs != 200_000 {
		t.Errorf("%d lines with %d bytes, want 4 with 200000", lines, xs)
	}
}

// A pod may have a name of 253 bytes, a file name has at most 255.
func TestLogFileOfLongName(t *testing.T) {
	long := pod(strings.Repeat("p", 253), true)
	c := newContainer(&worker{k: &Kubelet{}, namespace: strings.Repeat("n", 63), name: long.Name, uid: "0123456789"}, v1.Container{Name: strings.Repeat("c", 63)}, false)
	if name := filepath.Base(c.logFile()); len(name) > 255 {
		t.Errorf("%d bytes: %s", len(name), name)
	}
}

// The path decides, whatever the registry and the tag.
func TestImageIsFoundWithoutItsHost(t *testing.T) {
	images := Images{"gateway-api/echo-basic": {Entrypoint: []string{"one"}}, "registry.example:5000/team/app": {Entrypoint: []string{"two"}}, "coredns": {Entrypoint: []string{"three"}}}
	for reference, want := range map[string]string{
		"registry.k8s.io/gateway-api/echo-basic:v1.6.3": "one", "gateway-api/echo-basic": "one", "localhost/gateway-api/echo-basic@sha256:00": "one",
		"team/app:v2": "two", "mirror.example/team/app": "two", "registry.k8s.io/coredns/coredns:v1.12.0": "three",
	} {
		image, err := images.find(reference)
		if err != nil || image.Entrypoint[0] != want {
			t.Errorf("%s: %v, %v; want %s", reference, image.Entrypoint, err, want)
		}
	}
	if image, err := images.find("other/echo-basic"); err == nil {
		t.Errorf("other/echo-basic is %v of %v", image.Entrypoint, slices.Sorted(maps.Keys(images)))
	}
}
