package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// An agent that restarts finds on the hub what it would write, and writes
// nothing: no resourceVersion of what it pushed changes. That it is awake is
// seen by a new export, which it brings to the hub after the restart.
func TestRestartOfAnAgentWritesNothing(t *testing.T) {
	west := clusterNamed(t, "us-west")
	before := pushed(t, "member-us-west")
	if len(before) < 4 {
		t.Fatalf("us-west pushed only %v: nothing to compare", before)
	}
	pods, err := west.Client.CoreV1().Pods(lab.System).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=crossway-member-agent"})
	testkit.Must(t, err)
	if len(pods.Items) != 1 {
		t.Fatalf("%d agents", len(pods.Items))
	}
	testkit.Must(t, west.KillPod(lab.System, pods.Items[0].Name, time.Second))
	apply(t, west, `
apiVersion: v1
kind: Service
metadata: {name: awake, namespace: shop}
spec: {ports: [{name: http, port: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: awake, namespace: shop}
`)
	eventually(t, "the agent to bring a new export to the hub", func() (bool, string) {
		now := pushed(t, "member-us-west")
		return slices.ContainsFunc(now, func(line string) bool { return strings.Contains(line, "/awake.shop ") }), strings.Join(now, "\n")
	})
	eventually(t, "the hub's verdict on the new export, in the member", func() (bool, string) {
		lines := conditionsOf(t, object{"us-west", "serviceexport", "shop", "awake"})
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Ready=True") }), strings.Join(lines, "\n")
	})
	after := pushed(t, "member-us-west")
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("written or deleted by the restart: %s", line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) && !strings.Contains(line, "awake") {
			t.Errorf("written by the restart: %s", line)
		}
	}
}

// pushed lists what a member has on the hub, each with its resourceVersion.
func pushed(t *testing.T, namespace string) []string {
	t.Helper()
	out := kubectl(t, story.Lab.Hub, "get", "memberexports,endpointslices", "-n", namespace, "-o",
		`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
	return slices.Collect(strings.Lines(out))
}

// What the hub and the agent find about an export comes back to the user's own
// object, in the member.
func TestVerdictsComeBackToTheMember(t *testing.T) {
	for _, cluster := range []string{"us-west", "us-east", "eu-west"} {
		store := object{cluster, "serviceexport", "shop", "store"}
		says(t, store, "Valid=True", `Service "shop/store" can be exported`)
		says(t, store, "Ready=True Exported")
		says(t, store, "Conflict=False NoConflicts")
		says(t, store, "EndpointsAdmitted=True", cluster)
	}
}

// No process of Crossway may do everything, and each may do what its charts
// say. Kubernetes itself is asked.
func TestNobodyIsClusterAdmin(t *testing.T) {
	hub := "system:serviceaccount:" + lab.System + ":crossway-hub"
	agent := "system:serviceaccount:" + lab.System + ":crossway-member-agent"
	edge := "system:serviceaccount:" + lab.System + ":crossway-edge-us"
	member := memberUser(t, "us-west")
	for _, c := range []struct {
		cluster, user string
		may           bool
		what          string
	}{
		{"hub", hub, false, "* * --all-namespaces"},
		{"hub", hub, false, "create deployments --all-namespaces"},
		{"hub", hub, false, "update secrets -n infra"},
		{"hub", hub, false, "create clusterrolebindings"},
		{"hub", hub, false, "update httproutes -n shop"},
		{"hub", hub, true, "update httproutes --subresource=status -n shop"},
		{"us-west", agent, false, "* * --all-namespaces"},
		{"us-west", agent, false, "get secrets -n shop"},
		{"us-west", agent, false, "list pods --all-namespaces"},
		{"us-west", agent, false, "update pods -n shop"},
		{"us-west", agent, true, "watch serviceexports --all-namespaces"},
		{"hub", member, false, "* * -n member-us-west"},
		{"hub", member, false, "get memberexports -n member-us-east"},
		{"hub", member, false, "list secrets --all-namespaces"},
		{"hub", member, false, "list httproutes --all-namespaces"},
		{"hub", member, true, "patch memberexports -n member-us-west"},
		{"hub", edge, false, "* * --all-namespaces"},
		{"hub", edge, false, "get secrets -n " + lab.System},
	} {
		arguments := append([]string{"auth", "can-i"}, strings.Fields(c.what)...)
		arguments = append(arguments, "--as="+c.user)
		if c.user == member {
			arguments = append(arguments, "--as-group=crossway:members")
		}
		// "no" is also an exit status
		out, err := clusterNamed(t, c.cluster).Kubectl(t.Context(), nil, arguments...)
		if answer := strings.TrimSpace(out); answer != map[bool]string{true: "yes", false: "no"}[c.may] {
			t.Errorf("%s: may %s %s? %s %v", c.cluster, c.user, c.what, answer, err)
		}
	}
	out, err := clusterNamed(t, "us-west").Kubectl(t.Context(), nil, "--as="+agent, "label", "service", "store", "-n", "shop", "tried=yes")
	if err == nil || !strings.Contains(out+err.Error(), "the agent writes only") {
		t.Errorf("us-west: an agent labels a Service of others: %s %v", out, err)
	}
	for _, cluster := range []string{"hub", "us-west", "us-east", "eu-west"} {
		admins := kubectl(t, clusterNamed(t, cluster), "get", "clusterrolebindings", "-o",
			`jsonpath={range .items[?(@.roleRef.name=="cluster-admin")]}{.subjects}{"\n"}{end}`)
		if strings.Contains(admins, "crossway") {
			t.Errorf("%s: cluster-admin: %s", cluster, admins)
		}
		for _, pod := range systemPods(t, cluster) {
			if strings.HasSuffix(pod, " default") || strings.HasSuffix(pod, " ") {
				t.Errorf("%s: pod %sruns under no ServiceAccount of its own", cluster, pod)
			}
		}
	}
}

// memberUser is the user, on the hub, of a member's agent.
func memberUser(t *testing.T, name fleet.ClusterName) string {
	t.Helper()
	id := kubectl(t, story.Lab.Hub, "get", "membercluster", string(name), "-o", "jsonpath={.status.credential.id}")
	return registration.MemberUser(name, strings.TrimSpace(id))
}

func systemPods(t *testing.T, cluster string) []string {
	t.Helper()
	pods, err := clusterNamed(t, cluster).Client.CoreV1().Pods(lab.System).List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	var out []string
	for _, p := range pods.Items {
		out = append(out, fmt.Sprintf("%s %s", p.Name, p.Spec.ServiceAccountName))
	}
	if len(out) == 0 {
		t.Errorf("%s runs no pod of Crossway", cluster)
	}
	return out
}
