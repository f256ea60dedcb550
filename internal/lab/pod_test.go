package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/testkit"
)

const mostOfASpec = `
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: NAMESPACE}
data: {greeting: hello, other: unused}
---
apiVersion: v1
kind: Secret
metadata: {name: secret, namespace: NAMESPACE}
stringData: {password: swordfish}
---
apiVersion: v1
kind: Pod
metadata: {name: all, namespace: NAMESPACE, labels: {app: all}, annotations: {note: seen}}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: config, configMap: {name: config, items: [{key: greeting, path: deep/greeting}]}}
  - {name: mixed, projected: {sources: [{secret: {name: secret}}, {downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}]}}
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo first >> /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: second, image: busybox, command: [sh, -c, "echo second >> /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: busybox
    command: [sh, -c]
    args:
    - |
      cat /shared/order /config/deep/greeting /mixed/password /mixed/note; echo
      echo "$(LITERAL) $PASSWORD $GREETING $POD $NODE $MEMORY $(hostname)"
      touch /forbidden 2>/dev/null && echo "the root is writable"
      ls /config; sleep 1000
    securityContext: {readOnlyRootFilesystem: true}
    resources: {limits: {memory: 64Mi}}
    env:
    - {name: BASE, value: value}
    - {name: LITERAL, value: "literal-$(BASE)"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: secret, key: password}}}
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: config, key: greeting}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: config, mountPath: /config}
    - {name: mixed, mountPath: /mixed}
    readinessProbe: {exec: {command: [test, -e, /shared/go]}}
`

// One pod with most of what a pod spec can say: init containers in order, a
// probe, environment of each kind, volumes of each kind, a read-only root.
func TestPodSpec(t *testing.T) {
	c := fleet.Members["us-east"]
	apply(t, c, "spec", mostOfASpec)
	want := "first\nsecond\nhelloswordfishseen\nliteral-value swordfish hello all us-east 64 all\ndeep\n"
	eventually(t, within(t, 20*time.Second), "the pod has spoken", func() (bool, string) {
		output, err := c.Logs(t.Context(), "spec", "all", "main")
		return output == want, fmt.Sprint(output, err)
	})
	if pod := get(t, "spec", "all"); ready(pod) {
		t.Error("ready although its probe fails")
	}
	if _, err := c.Kubectl(t.Context(), nil, "exec", "-n", "spec", "all", "--", "touch", "/shared/go"); err != nil {
		t.Fatal(err)
	}
	testkit.Must(t, c.AwaitPods(within(t, 5*time.Second), "spec", "app=all", 1))
	// A change of the ConfigMap arrives in the running pod.
	if _, err := c.Kubectl(t.Context(), nil, "patch", "configmap", "-n", "spec", "config", "-p", `{"data":{"greeting":"good evening"}}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, within(t, 10*time.Second), "the changed ConfigMap arrives", func() (bool, string) {
		out, err := c.Kubectl(t.Context(), nil, "exec", "-n", "spec", "all", "--", "cat", "/config/deep/greeting")
		return out == "good evening", fmt.Sprint(out, err)
	})
}

func get(t *testing.T, namespace, name string) *v1.Pod {
	t.Helper()
	pod, err := fleet.Members["us-east"].Client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	testkit.Must(t, err)
	return pod
}

func ready(pod *v1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

// What is missing keeps a pod waiting, with a message; it starts when it comes.
func TestMissing(t *testing.T) {
	c := fleet.Members["us-east"]
	apply(t, c, "missing", `
apiVersion: v1
kind: Pod
metadata: {name: waits, namespace: NAMESPACE, labels: {app: waits}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: late, secret: {secretName: late}}]
  containers: [{name: waits, image: busybox, command: [sleep, "1000"], volumeMounts: [{name: late, mountPath: /late}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: unknown, namespace: NAMESPACE}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: unknown, image: "example.org/nobody/knows:v1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere, namespace: NAMESPACE}
spec:
  nodeSelector: {no: such}
  containers: [{name: nowhere, image: busybox}]
`)
	says := func(name, want string) {
		t.Helper()
		eventually(t, within(t, 10*time.Second), name+" says "+want, func() (bool, string) {
			s := fmt.Sprintf("%+v", get(t, "missing", name).Status)
			return strings.Contains(s, want), s
		})
	}
	says("waits", `secret "late" not found`)
	says("unknown", `no entry for the image repository "example.org/nobody/knows"`)
	says("nowhere", "no node of the lab has the labels")
	if _, err := c.Kubectl(t.Context(), nil, "create", "secret", "generic", "-n", "missing", "late", "--from-literal=a=b"); err != nil {
		t.Fatal(err)
	}
	testkit.Must(t, c.AwaitPods(within(t, 10*time.Second), "missing", "app=waits", 1))
}

// A crash is restarted under the same address; the time down is as asked for.
func TestKillPod(t *testing.T) {
	c := fleet.Members["us-east"]
	apply(t, c, "crash", strings.ReplaceAll(echo, "replicas: 2", "replicas: 1"))
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "crash", "app=echo", 1))
	pods, err := c.Client.CoreV1().Pods("crash").List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
	testkit.Must(t, err)
	before := pods.Items[0]
	testkit.Must(t, c.KillPod("crash", before.Name, time.Second))
	eventually(t, within(t, 5*time.Second), "the pod is not ready", func() (bool, string) { return !ready(get(t, "crash", before.Name)), "" })
	down := time.Now()
	testkit.Must(t, c.AwaitPods(within(t, 10*time.Second), "crash", "app=echo", 1))
	after := get(t, "crash", before.Name)
	status := after.Status.ContainerStatuses[0]
	if after.Status.PodIP != before.Status.PodIP || status.RestartCount != 1 || status.LastTerminationState.Terminated.ExitCode != 137 {
		t.Errorf("after the crash: address %s (was %s), %+v", after.Status.PodIP, before.Status.PodIP, status)
	}
	if took := time.Since(down); took < 700*time.Millisecond {
		t.Errorf("back after %s, asked to be down for 1 s", took)
	}
}
