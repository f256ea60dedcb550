package registration

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// SystemNamespace tells whether a namespace is the system's own: Kubernetes',
// Crossway's or a member's on the hub. No service there is exported or imported.
func SystemNamespace(namespace string) bool {
	for _, prefix := range []string{"kube-", "crossway-", v1alpha1.MemberNamespacePrefix} {
		if strings.HasPrefix(namespace, prefix) {
			return true
		}
	}
	return false
}

// MayExport tells whether services of a namespace may be exported by a member:
// whether its spec.exports.namespaces has it.
func MayExport(m *v1alpha1.MemberCluster, namespace string) bool {
	return Accepted(m) && matches(m.Spec.Exports.Namespaces, namespace)
}

// MayImport tells whether services of a namespace may be imported by a member:
// whether its spec.imports.namespaces has it or, where there is no spec.imports,
// its spec.exports.namespaces.
func MayImport(m *v1alpha1.MemberCluster, namespace string) bool {
	return Accepted(m) && matches(ImportPatterns(m), namespace)
}

// ImportPatterns are the namespaces of which MayImport tells.
func ImportPatterns(m *v1alpha1.MemberCluster) []v1alpha1.NamespacePattern {
	if m.Spec.Imports != nil {
		return m.Spec.Imports.Namespaces
	}
	return m.Spec.Exports.Namespaces
}

// Owner returns the member that a namespace on the hub was made for. The name
// alone does not say that: somebody else may have made namespace member-foo
// before cluster foo was accepted.
func Owner(namespace *corev1.Namespace) (cluster fleet.ClusterName, ok bool) {
	name, ok := v1alpha1.MemberOfNamespace(namespace.Name)
	return fleet.ClusterName(name), ok && namespace.Labels[v1alpha1.LabelMember] == name
}

// Owners returns the accepted members by the namespace on the hub that was made for each.
func Owners(members []v1alpha1.MemberCluster, namespaces []corev1.Namespace) map[string]*v1alpha1.MemberCluster {
	byName := map[fleet.ClusterName]*v1alpha1.MemberCluster{}
	for i := range members {
		if Accepted(&members[i]) {
			byName[fleet.ClusterName(members[i].Name)] = &members[i]
		}
	}
	owners := map[string]*v1alpha1.MemberCluster{}
	for i := range namespaces {
		if owner, ok := Owner(&namespaces[i]); ok && byName[owner] != nil {
			owners[namespaces[i].Name] = byName[owner]
		}
	}
	return owners
}

// ExportCounts tells whether an export in the namespace of a member counts; nil: the
// namespace is no member's.
func ExportCounts(owner *v1alpha1.MemberCluster, e *v1alpha1.MemberExport) bool {
	return owner != nil && MayExport(owner, e.Spec.Service.Namespace) && e.DeletionTimestamp == nil
}

// matches tells whether a pattern matches a namespace. Namespace "default" is
// what nobody chose, and means something else in each cluster, so only its name
// matches it (SIG Multicluster, "Namespace sameness": avoid it).
func matches(patterns []v1alpha1.NamespacePattern, namespace string) bool {
	if SystemNamespace(namespace) {
		return false
	}
	for _, p := range patterns {
		if string(p) == namespace {
			return true
		}
		if found, err := path.Match(string(p), namespace); err == nil && found && namespace != "default" {
			return true
		}
	}
	return false
}

// Limits are how much a member may have on the hub.
type Limits struct {
	Exports             int // MemberExports
	EndpointsPerService int // endpoints of one service that count
	Endpoints           int // endpoints of all services that count
}

// LimitsOf returns the limits of a member: those of its spec.exports, and for
// what is not set there the API's defaults.
func LimitsOf(m *v1alpha1.MemberCluster) Limits {
	orDefault := func(value int32, otherwise int) int {
		if value > 0 {
			return int(value)
		}
		return otherwise
	}
	rules := m.Spec.Exports
	return Limits{
		Exports:             orDefault(rules.MaxExports, 500),
		EndpointsPerService: orDefault(rules.MaxEndpointsPerService, 2000),
		Endpoints:           orDefault(rules.MaxEndpoints, 20000),
	}
}
