package registration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// RoleName is the name of the Role and the RoleBinding of every member, in its
// own namespace and in crossway-fleet.
const RoleName = "crossway-member"

// The quota's names of how many objects of a kind there are.
const (
	CountOfExports corev1.ResourceName = "count/memberexports.crossway.dev"
	CountOfSlices  corev1.ResourceName = "count/endpointslices.discovery.k8s.io"
	CountOfLeases  corev1.ResourceName = "count/leases.coordination.k8s.io"
)

// MemberObjects are what an accepted member needs on the hub.
type MemberObjects struct {
	Namespace corev1.Namespace
	Role      rbacv1.Role
	Binding   rbacv1.RoleBinding
	Quota     *corev1.ResourceQuota // how many objects the namespace takes; nil: any number
}

// Objects returns a member's namespace, and a Role with which its agent may
// write exports and their slices there and nowhere else, read the status of
// exports without writing it, renew its Lease, and read where the member API is. users are its agent's user names.
func Objects(cluster fleet.ClusterName, limits Limits, users ...string) MemberObjects {
	writes := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	o := newObjects(v1alpha1.MemberNamespace(cluster), map[string]string{v1alpha1.LabelMember: string(cluster)},
		rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"memberexports"}, Verbs: writes},
		rbacv1.PolicyRule{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"memberexports/status"}, Verbs: []string{"get"}},
		rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: writes},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{v1alpha1.MemberAPIConfigMap}, Verbs: []string{"get", "list", "watch"}},
		// create cannot be limited by name (Kubernetes RBAC, "Referring to resources")
		rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{v1alpha1.AgentLease}, Verbs: []string{"get", "update", "patch"}})
	for _, user := range users {
		o.Binding.Subjects = append(o.Binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user})
	}
	o.Quota = &corev1.ResourceQuota{ObjectMeta: o.Role.ObjectMeta, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
		CountOfExports: *resource.NewQuantity(int64(limits.Exports), resource.DecimalSI),
		CountOfSlices:  *resource.NewQuantity(int64(limits.slices()), resource.DecimalSI),
		CountOfLeases:  *resource.NewQuantity(1, resource.DecimalSI),
	}}}
	return o
}

// Full is what a member has as much of as its quota allows, like "500 exports". Of its
// Lease it has one.
func Full(quota *corev1.ResourceQuota) (full []string) {
	for _, kind := range []struct {
		count corev1.ResourceName
		name  string
	}{{CountOfExports, "exports"}, {CountOfSlices, "EndpointSlices"}} {
		hard, limited := quota.Spec.Hard[kind.count]
		if used, counted := quota.Status.Used[kind.count]; limited && counted && used.Cmp(hard) >= 0 {
			full = append(full, hard.String()+" "+kind.name)
		}
	}
	return full
}

// slices is how many EndpointSlices the hub takes of a member: for each export
// one of each family that is not full, and as many full ones as all endpoints
// take, of each family.
func (l Limits) slices() int {
	return 2*l.Exports + 2*((l.Endpoints+fleet.MaxSliceEndpoints-1)/fleet.MaxSliceEndpoints)
}

// TokenObjects is a ServiceAccount whose tokens are a credential, and the right to make
// tokens of it.
type TokenObjects struct {
	Account corev1.ServiceAccount
	Role    rbacv1.Role
	Binding rbacv1.RoleBinding
}

// NewTokenObjects returns the ServiceAccount of a member's agent with a Role in which it
// and whoever asked for it, by their user names, may make tokens of it and of no other.
func NewTokenObjects(cluster fleet.ClusterName, id, requester string) TokenObjects {
	meta := metav1.ObjectMeta{Namespace: v1alpha1.MembersNamespace, Name: MemberAccount(cluster, id), Labels: map[string]string{v1alpha1.LabelMember: string(cluster)}}
	o := TokenObjects{
		Account: corev1.ServiceAccount{ObjectMeta: meta, AutomountServiceAccountToken: new(bool)},
		Role: rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{meta.Name}, Verbs: []string{"create"}}}},
		Binding: rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}},
	}
	for _, user := range slices.Compact(slices.Sorted(slices.Values([]string{CredentialUser(cluster, v1alpha1.CredentialServiceAccountToken, id), requester}))) {
		o.Binding.Subjects = append(o.Binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user})
	}
	return o
}

// FleetNamespace returns the namespace of the fleet's objects. No member reads there.
func FleetNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}}
}

// MemberAPIPlace is where the hub is reached by agents.
type MemberAPIPlace struct {
	URL        string // of the member API
	CA         []byte // who signed its server's certificate, PEM
	ClusterSet string // the fleet's name
	Gossip     string // host:port; "": there is no gossip
}

// MemberAPI is where the member API is, for the agent of one member, and where gossip is.
// Each has its own, so that a watch which a member opened before it was revoked shows
// nothing new.
func MemberAPI(cluster fleet.ClusterName, p MemberAPIPlace) *corev1.ConfigMap {
	data := map[string]string{v1alpha1.MemberAPIAddress: p.URL, v1alpha1.MemberAPICA: string(p.CA), v1alpha1.MemberAPIClusterSet: p.ClusterSet}
	if p.Gossip != "" {
		data[v1alpha1.MemberAPIGossip] = p.Gossip
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace(cluster), Name: v1alpha1.MemberAPIConfigMap}, Data: data}
}

// newObjects is a namespace with a Role, and a binding of nobody.
func newObjects(namespace string, labels map[string]string, rules ...rbacv1.PolicyRule) MemberObjects {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: RoleName, Labels: labels}
	return MemberObjects{
		Namespace: corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: labels}},
		Role:      rbacv1.Role{ObjectMeta: meta, Rules: rules},
		Binding: rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: RoleName},
		},
	}
}
