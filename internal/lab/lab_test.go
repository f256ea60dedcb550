package lab_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/kubelet"
	"crossway.dev/crossway/internal/testkit"
)

// fleet is the one lab that the tests of this package share.
var fleet *lab.Lab

func TestMain(m *testing.M) {
	lab.Enter(lab.Entry{Build: []string{"echo"}})
	cfg := lab.Config{LogDir: os.Getenv("LAB_LOG_DIR"), Images: kubelet.Images{"none": {}}}
	if os.Getenv(childVariable) != "" {
		cfg.Members = lab.Members[:1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if fleet, err = lab.Start(ctx, cfg, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(childVariable) != "" {
		child()
	}
	code := m.Run()
	fleet.Close()
	os.Exit(code)
}

// within bounds a wait: far longer than a healthy lab needs.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// apply applies manifests in a namespace of the test's own, and deletes them
// with it.
func apply(t *testing.T, c *lab.Cluster, namespace, manifests string) {
	t.Helper()
	object := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := c.Client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{})
	})
	for { // the namespace's default ServiceAccount comes a moment later
		_, err := c.Client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), "default", metav1.GetOptions{})
		if err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	testkit.Must(t, c.Apply(t.Context(), []byte(strings.ReplaceAll(manifests, "NAMESPACE", namespace))))
}

// eventually waits for a condition, and prints what it saw last.
func eventually(t *testing.T, ctx context.Context, what string, is func() (bool, string)) {
	t.Helper()
	for {
		ok, saw := is()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s; last: %s", what, saw)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const echo = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: echo
        image: crossway/echo:dev
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /-/ready, port: http}}
        env:
        - {name: CLUSTER, value: us-west}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: NAMESPACE}
spec:
  selector: {app: echo}
  ports: [{port: 80, targetPort: http}]
`

// Two pods of a Deployment answer as themselves behind their ClusterIP, from a
// neighbouring pod of the same bridge, where an answer must come back through
// kube-proxy's translation.
func TestDeploymentAndService(t *testing.T) {
	c := fleet.Members["us-west"]
	begin := time.Now()
	apply(t, c, "deployment", echo)
	applied := time.Now()
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "deployment", "app=echo", 2))
	t.Logf("applied in %s, ready %s later", applied.Sub(begin), time.Since(applied))
	service, err := c.Client.CoreV1().Services("deployment").Get(t.Context(), "echo", metav1.GetOptions{})
	testkit.Must(t, err)
	pods, err := c.Client.CoreV1().Pods("deployment").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	ctx := within(t, 20*time.Second)
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3`, service.Spec.ClusterIP)
	answered := map[string]bool{}
	eventually(t, ctx, "both pods answer through the ClusterIP", func() (bool, string) {
		out, err := c.Kubectl(ctx, nil, "exec", "-n", "deployment", pods.Items[0].Name, "--", "timeout", "2", "bash", "-c", script)
		for _, p := range pods.Items {
			if strings.Contains(out, `"pod":"`+p.Name+`"`) {
				answered[p.Name] = true
			}
		}
		return len(answered) == 2, fmt.Sprint(out, err)
	})
}

// A StatefulSet's pods come in order and under their own stable names.
func TestStatefulSet(t *testing.T) {
	c := fleet.Members["eu-west"]
	apply(t, c, "statefulset", `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: NAMESPACE}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: db, image: busybox, command: [sh, -c, "hostname; sleep 1000"]}]
`)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "statefulset", "app=db", 2))
	for _, name := range []string{"db-0", "db-1"} {
		eventually(t, within(t, 5*time.Second), name+" says its name", func() (bool, string) {
			output, err := c.Logs(t.Context(), "statefulset", name, "db")
			return output == name+"\n", fmt.Sprint(output, err)
		})
	}
}

// A pod reaches its API server by the Service "kubernetes" and is known there
// by its ServiceAccount's token; a pod that ends is Succeeded.
func TestServiceAccount(t *testing.T) {
	c := fleet.Hub
	apply(t, c, "account", `
apiVersion: v1
kind: Pod
metadata: {name: whoami, namespace: NAMESPACE}
spec:
  restartPolicy: Never
  containers: [{name: whoami, image: kubectl, args: [auth, whoami, -o, "jsonpath={.status.userInfo.username}"]}]
`)
	eventually(t, within(t, 20*time.Second), "the pod succeeds", func() (bool, string) {
		p, err := c.Client.CoreV1().Pods("account").Get(t.Context(), "whoami", metav1.GetOptions{})
		output, _ := c.Logs(t.Context(), "account", "whoami", "whoami")
		return err == nil && p.Status.Phase == v1.PodSucceeded, fmt.Sprint(err, p.Status.Phase, output)
	})
	output, err := c.Logs(t.Context(), "account", "whoami", "whoami")
	if err != nil || strings.TrimSpace(output) != "system:serviceaccount:account:default" {
		t.Errorf("the API server saw %q, %v", output, err)
	}
}

// preStop comes before SIGTERM, and the pod's own end before the end of the
// grace period; all the while the pod's endpoint is terminating, not gone.
func TestGracefulTermination(t *testing.T) {
	c := fleet.Members["us-east"]
	apply(t, c, "graceful", `
apiVersion: v1
kind: Pod
metadata: {name: worker, namespace: NAMESPACE, labels: {app: worker}}
spec:
  terminationGracePeriodSeconds: 20
  volumes: [{name: shared, emptyDir: {}}]
  containers:
  - name: worker
    image: busybox
    command: [sh, -c, "trap 'echo TERM; exit 0' TERM; echo started; while :; do [ -e /shared/stopping ] && cat /shared/stopping && rm /shared/stopping; sleep 0.05; done"]
    volumeMounts: [{name: shared, mountPath: /shared}]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo preStop > /shared/stopping; sleep 0.5"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: worker, namespace: NAMESPACE}
spec: {selector: {app: worker}, ports: [{port: 80}]}
`)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "graceful", "app=worker", 1))
	logs, err := c.Client.CoreV1().Pods("graceful").GetLogs("worker", &v1.PodLogOptions{Follow: true}).Stream(t.Context())
	testkit.Must(t, err)
	defer logs.Close()
	begin := time.Now()
	testkit.Must(t, c.Client.CoreV1().Pods("graceful").Delete(t.Context(), "worker", metav1.DeleteOptions{}))
	eventually(t, within(t, 5*time.Second), "the endpoint is terminating", func() (bool, string) {
		slices, err := c.Client.DiscoveryV1().EndpointSlices("graceful").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(slices.Items) != 1 || len(slices.Items[0].Endpoints) != 1 {
			return false, fmt.Sprint(slices, err)
		}
		e := slices.Items[0].Endpoints[0].Conditions
		return *e.Terminating && *e.Serving && !*e.Ready, fmt.Sprint(e)
	})
	output, err := io.ReadAll(logs)
	if err != nil || string(output) != "started\npreStop\nTERM\n" {
		t.Errorf("the pod said %q (%v)", output, err)
	}
	testkit.Must(t, c.AwaitPods(within(t, 10*time.Second), "graceful", "app=worker", 0))
	if took := time.Since(begin); took < 500*time.Millisecond || took > 10*time.Second {
		t.Errorf("gone after %s, want after preStop (0.5 s) and well before the grace period (20 s)", took)
	}
}

// A pod that ignores SIGTERM is killed at the end of its grace period.
func TestGracePeriodEnds(t *testing.T) {
	c := fleet.Members["us-east"]
	apply(t, c, "stubborn", `
apiVersion: v1
kind: Pod
metadata: {name: stubborn, namespace: NAMESPACE, labels: {app: stubborn}}
spec:
  terminationGracePeriodSeconds: 3
  containers: [{name: stubborn, image: busybox, command: [sh, -c, "trap '' TERM; while :; do sleep 0.1; done"]}]
`)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "stubborn", "app=stubborn", 1))
	begin := time.Now()
	testkit.Must(t, c.Client.CoreV1().Pods("stubborn").Delete(t.Context(), "stubborn", metav1.DeleteOptions{}))
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "stubborn", "app=stubborn", 0))
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("gone after %s, before its grace period of 3 s", took)
	}
}
