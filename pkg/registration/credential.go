package registration

import (
	"crypto/rand"
	"regexp"
	"slices"
	"strings"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// accountUserPrefix begins the user names of ServiceAccounts in MembersNamespace.
const accountUserPrefix = "system:serviceaccount:" + v1alpha1.MembersNamespace + ":"

const (
	credentialIDLength   = 10
	credentialCharacters = "abcdefghijklmnopqrstuvwxyz0123456789"
)

var (
	idPattern      = regexp.MustCompile(`^[a-z0-9]{10}$`)
	clusterPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$`)
)

// NewCredentialID makes the ID of a credential, or of a join token: 10 lower case
// letters and digits, which nobody can guess.
func NewCredentialID() string {
	id := make([]byte, 0, credentialIDLength)
	for len(id) < credentialIDLength {
		var random [1]byte
		_, _ = rand.Read(random[:])                                               // it never fails (crypto/rand)
		if limit := 256 - 256%len(credentialCharacters); int(random[0]) < limit { // else some would come more often
			id = append(id, credentialCharacters[int(random[0])%len(credentialCharacters)])
		}
	}
	return string(id)
}

// MemberUser is the user name, on the hub, of an agent with a client certificate.
func MemberUser(cluster fleet.ClusterName, id string) string {
	return v1alpha1.MemberUserPrefix + string(cluster) + ":" + id
}

// MemberAccount is the name of the ServiceAccount, in MembersNamespace, of an agent
// that has tokens. A cluster's name has no dot in it.
func MemberAccount(cluster fleet.ClusterName, id string) string { return string(cluster) + "." + id }

// CredentialUser is the user name, on the hub, of an agent with a credential of either kind.
func CredentialUser(cluster fleet.ClusterName, kind v1alpha1.CredentialKind, id string) string {
	if kind == v1alpha1.CredentialServiceAccountToken {
		return accountUserPrefix + MemberAccount(cluster, id)
	}
	return MemberUser(cluster, id)
}

// ParseMemberAccount is the reverse of MemberAccount.
func ParseMemberAccount(name string) (cluster fleet.ClusterName, id string, ok bool) {
	return ParseMemberUser(accountUserPrefix + name)
}

// ParseMemberUser is the reverse of CredentialUser; ok is false for a user who is no
// member's agent.
func ParseMemberUser(user string) (cluster fleet.ClusterName, id string, ok bool) {
	var name string
	if rest, isUser := strings.CutPrefix(user, v1alpha1.MemberUserPrefix); isUser {
		name, id, ok = strings.Cut(rest, ":")
	} else if rest, isAccount := strings.CutPrefix(user, accountUserPrefix); isAccount {
		name, id, ok = strings.Cut(rest, ".")
	}
	if !ok || !clusterPattern.MatchString(name) || !idPattern.MatchString(id) {
		return "", "", false
	}
	return fleet.ClusterName(name), id, true
}

// InForce is the credential that a member's agent is let in with; nil: nobody is.
func InForce(m *v1alpha1.MemberCluster) *v1alpha1.MemberCredential {
	if c := m.Status.Credential; Accepted(m) && c != nil && !Revoked(m, c.ID) {
		return c
	}
	return nil
}

// Revoked tells whether the credential with an ID was revoked.
func Revoked(m *v1alpha1.MemberCluster, id string) bool {
	return slices.Contains(m.Spec.RevokedCredentials, id)
}
