package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
)

// A plain Deployment on the hub's cluster: its pods need a pod network, which
// the edge nodes do not have.
func TestPlainDeploymentOnHub(t *testing.T) {
	apply(t, fleet.Hub, "plain", strings.ReplaceAll(echo, "replicas: 2", "replicas: 3"))
	testkit.Must(t, fleet.Hub.AwaitPods(within(t, 20*time.Second), "plain", "app=echo", 3))
	pods, err := fleet.Hub.Client.CoreV1().Pods("plain").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for _, p := range pods.Items {
		if p.Spec.NodeName != "hub" {
			t.Errorf("pod %s is on node %s", p.Name, p.Spec.NodeName)
		}
	}
}

// badPods are pods that the lab cannot run, the reason that each one's first
// container gives, and a part of its message.
var badPods = []struct{ name, spec, reason, message string }{
	{"by-hand", `{nodeName: edge-us, containers: [{name: main, image: busybox}]}`, "NoPodNetwork", "edge-us has no pod network"},
	{"nowhere", `{nodeSelector: {kubernetes.io/hostname: edge-us}, containers: [{name: main, image: busybox}]}`, "", "run only pods with hostNetwork"},
	{"image", `{containers: [{name: main, image: "example.org/nobody/knows:v1"}]}`, "ErrImagePull", "nobody/knows"},
	{"command", `{containers: [{name: main, image: busybox, command: [/no/such/program]}]}`, "RunContainerError", "no such file"},
	{"no-command", `{containers: [{name: main, image: none}]}`, "RunContainerError", "has a command"},
	{"crash", `{containers: [{name: main, image: busybox, command: [sh, -c, "exit 7"]}]}`, "CrashLoopBackOff", "exit code 7"},
	{"killed", `{containers: [{name: main, image: busybox, command: [sh, -c, "kill -9 $$$$"]}]}`, "CrashLoopBackOff", "exit code 137"},
	{"secret", `{containers: [{name: main, image: busybox, envFrom: [{secretRef: {name: absent}}]}]}`, "CreateContainerConfigError", `secret "absent" not found`},
	{"volume", `{volumes: [{name: v, configMap: {name: absent}}], containers: [{name: main, image: busybox}]}`, "FailedMount", `configmap "absent" not found`},
	{"claim", `{volumes: [{name: v, persistentVolumeClaim: {claimName: absent}}], containers: [{name: main, image: busybox}]}`, "FailedMount", "the lab knows only"},
	{"items", `{volumes: [{name: v, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}, {path: a/b, fieldRef: {fieldPath: metadata.name}}]}}],
      containers: [{name: main, image: busybox}]}`, "FailedMount", "volume v"},
	{"root", `{volumes: [{name: v, emptyDir: {}}], containers: [{name: main, image: busybox, command: [sh], volumeMounts: [{name: v, mountPath: /}]}]}`, "RunContainerError", "no such file"},
	{"sidecar", `{initContainers: [{name: proxy, image: busybox, restartPolicy: Always}], containers: [{name: main, image: busybox}]}`, "Unsupported", "init container proxy"},
	{"ports", `{containers: [{name: main, image: busybox, command: [sh, -c, "exit 98"],
      ports: [{name: a, containerPort: 8080}, {name: b, containerPort: 8080}]}]}`, "CrashLoopBackOff", "exit code 98"},
	{"huge-env", `{containers: [{name: main, image: busybox, command: [sh], env: [{name: HUGE, value: HUGE-VALUE}]}]}`, "RunContainerError", "argument list too long"},
	{"huge-command", `{containers: [{name: main, image: busybox, command: [HUGE-VALUE]}]}`, "RunContainerError", "xxx"},
	{"huge-annotation", `{containers: [{name: main, image: busybox, command: [sh], env: [{name: A, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['huge']"}}}]}]}`, "RunContainerError", "argument list too long"},
	{"nul", `{containers: [{name: main, image: busybox, command: [sh, "\0"]}]}`, "RunContainerError", "invalid argument"},
	{strings.Repeat("p", 253), `{containers: [{name: main, image: busybox, command: [sh, -c, "exit 3"]}]}`, "CrashLoopBackOff", "exit code 3"},
}

const badPod = `
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: NAMESPACE, annotations: {huge: "HUGE-VALUE"}}
spec: %s
---
`

// Whatever a pod asks for, what is wrong is reported on that pod, its
// neighbours run, and it can be deleted.
func TestBadPods(t *testing.T) {
	var manifests strings.Builder
	for _, p := range badPods {
		spec := strings.Replace(p.spec, "{", "{terminationGracePeriodSeconds: 0, ", 1)
		fmt.Fprintf(&manifests, badPod, p.name, spec)
	}
	apply(t, fleet.Hub, "bad", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: present, namespace: NAMESPACE}\n")
	create := strings.NewReplacer("HUGE-VALUE", strings.Repeat("x", 200_000), "NAMESPACE", "bad").Replace(manifests.String())
	if _, err := fleet.Hub.Kubectl(t.Context(), []byte(create), "create", "-f", "-"); err != nil { // apply takes no port twice
		t.Fatal(err)
	}
	pods := fleet.Hub.Client.CoreV1().Pods("bad")
	for _, p := range badPods {
		t.Run(fmt.Sprintf("%.20s", p.name), func(t *testing.T) {
			eventually(t, within(t, 20*time.Second), p.reason+": "+p.message, func() (bool, string) {
				pod, err := pods.Get(t.Context(), p.name, metav1.GetOptions{})
				if err != nil {
					return false, err.Error()
				}
				for _, c := range pod.Status.ContainerStatuses {
					if w := c.State.Waiting; w != nil && w.Reason == p.reason && strings.Contains(w.Message, p.message) {
						return true, ""
					}
				}
				for _, c := range pod.Status.Conditions {
					if c.Type == v1.PodScheduled && p.reason == "" && strings.Contains(c.Message, p.message) {
						return true, ""
					}
				}
				return false, fmt.Sprintf("%.2000s", fmt.Sprint(pod.Status))
			})
		})
	}
	events, err := fleet.Hub.Client.CoreV1().Events("bad").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=by-hand"})
	if err != nil || len(events.Items) == 0 {
		t.Errorf("there is no Event of pod by-hand (%v)", err)
	}
	apply(t, fleet.Hub, "good", echo)
	if err := fleet.Hub.AwaitPods(within(t, 20*time.Second), "good", "app=echo", 2); err != nil {
		t.Error(err)
	}
	if _, err := fleet.Hub.Kubectl(within(t, 30*time.Second), nil, "delete", "pods", "--all", "-n", "bad", "--timeout=25s"); err != nil {
		t.Error(err)
	}
}

// The machine's addresses are another network than the lab's.
func TestListenOnMachine(t *testing.T) {
	l, err := lab.Listen("127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	if second, err := lab.Listen(l.Addr().String()); err == nil {
		second.Close()
		t.Errorf("%s of the machine can be taken twice", l.Addr())
	}
	if err := try(fleet.Dial, l.Addr().String(), time.Second); err == nil {
		t.Errorf("%s of the machine is in the lab's network", l.Addr())
	}
}
