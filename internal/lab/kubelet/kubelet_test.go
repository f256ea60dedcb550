package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"crossway.dev/crossway/internal/testkit"
)

func TestRepository(t *testing.T) {
	for reference, want := range map[string]string{
		"crossway/hub":                         "crossway/hub",
		"crossway/hub:dev":                     "crossway/hub",
		"localhost:5000/crossway/hub":          "localhost:5000/crossway/hub",
		"localhost:5000/crossway/hub:v1":       "localhost:5000/crossway/hub",
		"envoyproxy/envoy:v1@sha256:0123abcde": "envoyproxy/envoy",
	} {
		if got := Repository(reference); got != want {
			t.Errorf("%s: %s, want %s", reference, got, want)
		}
	}
}

// An image is found by its repository, else by the last element; a file adds
// to the table and overrides it.
func TestImages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "images.yaml")
	testkit.Must(t, os.WriteFile(file, []byte("registry.example/echo-basic: {entrypoint: [/echo], files: {/echo: /opt/echo}}\nenvoy: {entrypoint: [mine]}\n"), 0o644))
	images, err := Images{"envoy": {Entrypoint: []string{"built-in"}}}.With(file)
	testkit.Must(t, err)
	for reference, want := range map[string]string{"registry.example/echo-basic:v1.5.1": "/echo", "envoyproxy/envoy:v1.40.0": "mine"} {
		image, err := images.find(reference)
		if err != nil || image.Entrypoint[0] != want {
			t.Errorf("%s: %v, %v; want %s", reference, image, err, want)
		}
	}
	if _, err := images.find("nobody/knows"); err == nil || !strings.Contains(err.Error(), `"nobody/knows"`) {
		t.Errorf("an unknown image: %v", err)
	}
}

// command replaces the entrypoint and the image's arguments, args only these
// (Kubernetes, "Define a Command and Arguments for a Container").
func TestCommandLine(t *testing.T) {
	image := Image{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for _, c := range []struct {
		command, args []string
		want          string
	}{
		{nil, nil, "entry cmd"},
		{[]string{"command"}, nil, "command"},
		{nil, []string{"$(A)", "$$(A)", "$(B)", "$A"}, "entry value $(A) $(B) $A"},
		{[]string{"command"}, []string{"args"}, "command args"},
	} {
		got := strings.Join(commandLine(image, v1.Container{Command: c.command, Args: c.args}, map[string]string{"A": "value"}), " ")
		if got != c.want {
			t.Errorf("%v %v: %q, want %q", c.command, c.args, got, c.want)
		}
	}
}

func TestResourceValue(t *testing.T) {
	spec := v1.Container{Resources: v1.ResourceRequirements{Limits: v1.ResourceList{
		v1.ResourceMemory: resource.MustParse("64Mi"), v1.ResourceCPU: resource.MustParse("1500m"),
	}}}
	for _, c := range []struct{ name, divisor, want string }{
		{"limits.memory", "0", "67108864"}, {"limits.memory", "1Mi", "64"}, {"limits.cpu", "0", "2"}, {"limits.cpu", "1m", "1500"}, {"requests.cpu", "1", "0"},
	} {
		ref := &v1.ResourceFieldSelector{Resource: c.name, Divisor: resource.MustParse(c.divisor)}
		if got := resourceValue(ref, spec); got != c.want {
			t.Errorf("%s by %s: %s, want %s", c.name, c.divisor, got, c.want)
		}
	}
}

// A volume is replaced as a whole: a reader that has opened "..data" sees the
// old files or the new ones, and files that are gone leave no link.
func TestWriteAtomic(t *testing.T) {
	dir := t.TempDir()
	write := func(version string, files map[string]string) {
		t.Helper()
		payload := map[string]file{}
		for path, data := range files {
			payload[path] = file{[]byte(data), 0o600}
		}
		testkit.Must(t, writeAtomic(dir, version, payload))
	}
	write("..1", map[string]string{"a": "1", "deep/b": "1", "old": "1"})
	write("..2", map[string]string{"a": "2", "deep/b": "2"})
	for path, want := range map[string]string{"a": "2", "deep/b": "2", "..data/a": "2"} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"old", "..1"} {
		if _, err := os.Lstat(filepath.Join(dir, path)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "a")); err != nil || to != "..data/a" {
		t.Errorf("a is %q, %v; want a link through ..data, which a rename replaces", to, err)
	}
}

func TestPhase(t *testing.T) {
	ended := func(code int32) v1.ContainerState {
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}
	}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	for _, c := range []struct {
		policy v1.RestartPolicy
		states []v1.ContainerState
		want   v1.PodPhase
	}{
		{v1.RestartPolicyAlways, nil, v1.PodPending},
		{v1.RestartPolicyAlways, []v1.ContainerState{running, running}, v1.PodRunning},
		{v1.RestartPolicyAlways, []v1.ContainerState{ended(1)}, v1.PodRunning},
		{v1.RestartPolicyNever, []v1.ContainerState{ended(0), running}, v1.PodRunning},
		{v1.RestartPolicyNever, []v1.ContainerState{ended(0), ended(0)}, v1.PodSucceeded},
		{v1.RestartPolicyNever, []v1.ContainerState{ended(0), ended(1)}, v1.PodFailed},
		{v1.RestartPolicyOnFailure, []v1.ContainerState{ended(1)}, v1.PodRunning},
		{v1.RestartPolicyOnFailure, []v1.ContainerState{ended(0)}, v1.PodSucceeded},
	} {
		w := &worker{spec: v1.PodSpec{RestartPolicy: c.policy}}
		for _, s := range c.states {
			w.mains = append(w.mains, &container{state: s, id: "begun"})
		}
		if got := w.phase(); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.policy, c.states, got, c.want)
		}
	}
}

// Whole lines get the time at which they were complete; since cuts at seconds,
// as sinceTime has no finer grain.
func TestLog(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	log, err := openLog(name)
	testkit.Must(t, err)
	for _, part := range []string{"one\ntw", "o\nthree"} {
		if _, err := log.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Must(t, log.Close())
	data, err := os.ReadFile(name)
	testkit.Must(t, err)
	var output []string
	for line := range strings.Lines(string(data)) {
		stamp, text, _ := strings.Cut(line, " ")
		if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
			t.Error(err)
		}
		output = append(output, text)
	}
	if got := strings.Join(output, ""); got != "one\ntwo\nthree\n" {
		t.Errorf("%q", got)
	}
	now := time.Date(2026, 1, 1, 0, 0, 10, 500, time.UTC)
	o := logOptions{since: now}
	for line, want := range map[string]bool{"2026-01-01T00:00:09.9Z x": false, "2026-01-01T00:00:10Z x": true, "2026-01-01T00:00:11Z x": true} {
		if o.wanted(line) != want {
			t.Errorf("%s since %s: %v", line, now, !want)
		}
	}
}
