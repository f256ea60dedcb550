package hostile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	envtestkit.MainWithControllers(m)
}

// hub is an API server with the policy of the hub's chart, and one member's access.
type hub struct {
	testkit.T
	member string
	admin  client.Client
	agent  client.Client // with the member's credential
}

func newHub(t *testing.T, member string, limits registration.Limits) *hub {
	t.Helper()
	h := &hub{T: testkit.T{TB: t}, member: member}
	var err error
	scheme := runtime.NewScheme()
	h.Must(clientgoscheme.AddToScheme(scheme))
	h.Must(v1alpha1.AddToScheme(scheme))
	h.admin, err = client.New(envtestkit.Config(t), client.Options{Scheme: scheme})
	h.Must(err)
	h.agent, err = client.New(envtestkit.As(t, registration.MemberUser(fleet.ClusterName(member), testkit.CredentialID), v1alpha1.MembersGroup), client.Options{})
	h.Must(err)
	h.installPolicy()
	h.join(limits)
	h.Eventually("the policy is in force, the Role too, and objects are counted", func() bool {
		lease := h.object("Lease", "other", "{}")
		refused := h.agent.Create(t.Context(), lease, client.DryRunAll)
		taken := h.agent.Create(t.Context(), h.object("Lease", v1alpha1.AgentLease, "{}"), client.DryRunAll)
		return refused != nil && strings.Contains(refused.Error(), "one Lease, crossway-agent") && taken == nil
	})
	return h
}

// join makes the MemberCluster and, as the hub does, what gives the agent access.
func (h *hub) join(limits registration.Limits) {
	h.Helper()
	c, err := cluster.New(envtestkit.Config(h.TB), func(o *cluster.Options) {
		o.Scheme = h.admin.Scheme()
		o.Cache.ByObject = registrationhub.CacheByObject()
	})
	h.Must(err)
	registrar, err := registrationhub.NewRegistrar(c, nil)
	h.Must(err)
	testkit.Run(h.TB, c.Start)
	h.Must(h.admin.Create(h.Context(), &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: h.member}, Spec: v1alpha1.MemberClusterSpec{
		Accepted: true, Region: "us", EndpointCIDRs: []string{"10.1.0.0/16"},
		Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}, MaxExports: int32(limits.Exports),
			MaxEndpointsPerService: int32(limits.EndpointsPerService), MaxEndpoints: int32(limits.Endpoints)},
	}}))
	testkit.Joined(h.TB, h.admin, h.member)
	h.Eventually("the member has joined", func() bool {
		_, err := registrar.Reconcile(h.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: h.member}})
		var m v1alpha1.MemberCluster
		var quota corev1.ResourceQuota
		if err != nil || h.admin.Get(h.Context(), client.ObjectKey{Name: h.member}, &m) != nil ||
			h.admin.Get(h.Context(), client.ObjectKey{Namespace: v1alpha1.MemberNamespace(h.member), Name: registration.RoleName}, &quota) != nil {
			return false
		}
		return len(quota.Status.Used) == len(quota.Spec.Hard) && meta.IsStatusConditionTrue(m.Status.Conditions, condition.MemberJoinedType)
	})
}

// installPolicy applies what the hub's chart has for members.
func (h *hub) installPolicy() {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 15*time.Minute) // a cold machine downloads first
	defer cancel()
	programs, err := install.Ensure(ctx, os.Stderr)
	h.Must(err)
	cmd := exec.CommandContext(ctx, programs.Helm, "template", "crossway-hub", filepath.Join("..", "..", "charts", "hub"), "--namespace", "crossway-system",
		"--kube-version", install.KubernetesVersion, "--set", "region=us,hubCIDRs={10.10.0.0/16}", "--show-only", "templates/members.yaml")
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+h.TempDir(), "HELM_CONFIG_HOME="+h.TempDir(), "HELM_DATA_HOME="+h.TempDir())
	out, err := cmd.Output()
	h.Must(err)
	decoder := utilyaml.NewYAMLToJSONDecoder(strings.NewReader(string(out)))
	for {
		var o unstructured.Unstructured
		if decoder.Decode(&o.Object) != nil {
			return
		}
		if err := h.admin.Create(h.Context(), &o); err != nil && !apierrors.IsAlreadyExists(err) {
			h.Fatal(err)
		}
	}
}

var groups = map[string]string{
	"MemberExport": "crossway.dev/v1alpha1", "FleetService": "crossway.dev/v1alpha1", "MemberCluster": "crossway.dev/v1alpha1",
	"EndpointSlice": "discovery.k8s.io/v1", "Lease": "coordination.k8s.io/v1", "ServiceImport": "multicluster.x-k8s.io/v1beta1",
	"Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1",
	"HTTPRoute": "gateway.networking.k8s.io/v1", "Gateway": "gateway.networking.k8s.io/v1",
}

// object is an object in the member's namespace; fields, as YAML, are merged into it.
func (h *hub) object(kind, name, fields string) *unstructured.Unstructured {
	h.Helper()
	version := groups[kind]
	if version == "" {
		version = "v1"
	}
	o := &unstructured.Unstructured{}
	h.Must(yaml.Unmarshal([]byte(fields), &o.Object))
	if o.Object == nil {
		o.Object = map[string]any{}
	}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	o.SetName(name)
	if o.GetNamespace() == "" {
		o.SetNamespace(v1alpha1.MemberNamespace(h.member))
	}
	return o
}

// export is a MemberExport of shop/<service>; more, as YAML in flow style, is added to its spec.
func (h *hub) export(service, more string) *unstructured.Unstructured {
	h.Helper()
	return h.object("MemberExport", service+".shop", fmt.Sprintf(
		`{spec: {service: {name: %q, namespace: shop}, exportedAt: "2026-01-01T00:00:00Z", type: ClusterSetIP, ports: [{name: http, port: 80, protocol: TCP}]%s}}`, service, more))
}

// slice is an EndpointSlice of shop/store with n endpoints; more is added to each of them.
func (h *hub) slice(name string, n int, more string) *unstructured.Unstructured {
	h.Helper()
	var endpoints []string
	for i := range n {
		endpoints = append(endpoints, fmt.Sprintf(`{addresses: [10.1.%d.%d]%s}`, i/200, i%200+1, more))
	}
	return h.object("EndpointSlice", name, fmt.Sprintf(
		`{metadata: {labels: {crossway.dev/service-name: store, crossway.dev/service-namespace: shop}}, addressType: IPv4, ports: [{name: tcp-80, port: 80, protocol: TCP}], endpoints: [%s]}`,
		strings.Join(endpoints, ", ")))
}

// with merges fields, as YAML, into an object's metadata.
func (h *hub) with(o *unstructured.Unstructured, metadata string) *unstructured.Unstructured {
	h.Helper()
	var more map[string]any
	h.Must(yaml.Unmarshal([]byte(metadata), &more))
	for key, value := range more {
		o.Object["metadata"].(map[string]any)[key] = value
	}
	return o
}

// refused fails where an object is taken, or is refused for another reason.
func (h *hub) refused(what string, err error, want string) {
	h.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		h.Errorf("%s: %v, want a refusal with %q", what, err, want)
	}
}

// flowSchemaOf is the UID of the FlowSchema that a member's request is of.
func (h *hub) flowSchemaOf(member string) string {
	h.Helper()
	config := envtestkit.As(h.TB.(*testing.T), registration.MemberUser(fleet.ClusterName(member), testkit.CredentialID), v1alpha1.MembersGroup)
	httpClient, err := rest.HTTPClientFor(config)
	h.Must(err)
	response, err := httpClient.Get(config.Host + "/apis/crossway.dev/v1alpha1/namespaces/member-" + member + "/memberexports")
	h.Must(err)
	h.Must(response.Body.Close())
	return response.Header.Get("X-Kubernetes-PF-FlowSchema-UID")
}
