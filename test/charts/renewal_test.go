package charts

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// What renews the certificate has a token for one Secret, in a pod of its own; the Envoys' pods have none.
func TestEdgeRenewal(t *testing.T) {
	rendered := render(t, "edge", "certificateSecret=mine,hub.port=443")
	var d appsv1.Deployment
	into(t, find(t, rendered, "Deployment", "crossway-edge-us-renewal"), &d)
	pod := d.Spec.Template.Spec
	if got := strings.Join(pod.Containers[0].Args, " "); got != "edge renew --namespace=crossway-system --secret-name=mine --hub=10.96.0.10:443 "+
		"--server-name=crossway-hub.crossway-system.svc --interval=5m" || pod.Containers[0].Image != "crossway/crossway:0.1.0" {
		t.Errorf("runs %s %s", pod.Containers[0].Image, got)
	}
	if c := pod.Containers[0].SecurityContext; pod.HostNetwork || !*pod.SecurityContext.RunAsNonRoot || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem {
		t.Errorf("the pod has more than it needs: %+v, %+v", pod.SecurityContext, c)
	}
	var role rbacv1.Role
	into(t, find(t, rendered, "Role", "crossway-edge-us-renewal"), &role)
	if len(role.Rules) != 1 || !slices.Equal(role.Rules[0].ResourceNames, []string{"mine"}) || !slices.Equal(role.Rules[0].Verbs, []string{"get", "update"}) {
		t.Errorf("may %+v", role.Rules)
	}
	var envoys appsv1.Deployment
	into(t, find(t, rendered, "Deployment", "crossway-edge-us"), &envoys)
	if selected := envoys.Spec.Selector.MatchLabels; selected["app.kubernetes.io/name"] == d.Spec.Template.Labels["app.kubernetes.io/name"] ||
		*envoys.Spec.Template.Spec.AutomountServiceAccountToken {
		t.Errorf("the Envoys' Deployment selects the renewal's pod, or has a token: %v", selected)
	}
	if !strings.Contains(render(t, "edge", "hub.address=2001:db8::1"), "--hub=[2001:db8::1]:18000") {
		t.Error("an IPv6 address of the hub has no brackets")
	}
	if strings.Contains(render(t, "edge", "renewal.enabled=false"), "crossway-edge-us-renewal") {
		t.Error("renewal.enabled=false renders a renewal")
	}
}
