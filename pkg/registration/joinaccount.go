package registration

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Prefixes of the names of join accounts, for members and for edges.
const (
	memberJoinPrefix = "join."
	edgeJoinPrefix   = "join-edge."
)

// NewMemberJoinAccount is the ServiceAccount that one join token is for. It goes with
// its MemberCluster: one that is made again has other tokens.
func NewMemberJoinAccount(m *v1alpha1.MemberCluster, id string, ends time.Time) *corev1.ServiceAccount {
	return joinAccount(memberJoinPrefix+m.Name+"."+id, v1alpha1.JoinMember, ends,
		metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "MemberCluster", Name: m.Name, UID: m.UID})
}

// NewEdgeJoinAccount is NewMemberJoinAccount for edges of a pool, in one zone.
func NewEdgeJoinAccount(pool *v1alpha1.EdgePool, zone, id string, ends time.Time) *corev1.ServiceAccount {
	account := joinAccount(EdgeJoinAccountName(pool.Name, id), v1alpha1.JoinEdge, ends,
		metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "EdgePool", Name: pool.Name, UID: pool.UID})
	if zone != "" {
		account.Annotations[v1alpha1.AnnotationZone] = zone
	}
	return account
}

// EdgeJoinAccountName is the name of the account that a join token of edges is for.
func EdgeJoinAccountName(pool, id string) string { return edgeJoinPrefix + pool + "." + id }

func joinAccount(name, purpose string, ends time.Time, owner metav1.OwnerReference) *corev1.ServiceAccount {
	no := false
	return &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.MembersNamespace, Name: name, OwnerReferences: []metav1.OwnerReference{owner},
			Labels:      map[string]string{v1alpha1.LabelJoin: purpose},
			Annotations: map[string]string{v1alpha1.AnnotationTokenEnds: ends.UTC().Format(time.RFC3339)},
		},
		AutomountServiceAccountToken: &no,
	}
}

// ParseMemberJoinUser reads the user name, or the name, of a member's join account.
func ParseMemberJoinUser(user string) (cluster fleet.ClusterName, id string, ok bool) {
	name, id, ok := parseJoinUser(user, memberJoinPrefix)
	return fleet.ClusterName(name), id, ok && clusterPattern.MatchString(name)
}

// ParseEdgeJoinUser is ParseMemberJoinUser for edges.
func ParseEdgeJoinUser(user string) (pool, id string, ok bool) {
	pool, id, ok = parseJoinUser(user, edgeJoinPrefix)
	return pool, id, ok && labelPattern.MatchString(pool)
}

func parseJoinUser(user, prefix string) (name, id string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(user, accountUserPrefix), prefix)
	if !ok {
		return "", "", false
	}
	name, id, ok = strings.Cut(rest, ".") // names of clusters and pools have no dot
	return name, id, ok && idPattern.MatchString(id)
}

// TokenEnds is when the token of a join account ends. An account that does not say it
// has ended.
func TokenEnds(account *corev1.ServiceAccount) time.Time {
	ends, err := time.Parse(time.RFC3339, account.Annotations[v1alpha1.AnnotationTokenEnds])
	if err != nil {
		return time.Time{}
	}
	return ends
}

// MadeFor tells whether a join account was made for an owner, not for an earlier one of that name.
func MadeFor(account *corev1.ServiceAccount, owner metav1.Object) bool {
	for _, o := range account.OwnerReferences {
		if o.UID == owner.GetUID() && o.Name == owner.GetName() {
			return true
		}
	}
	return false
}
