package registration

import (
	"regexp"
	"strings"
	"time"

	"crossway.dev/crossway/api/v1alpha1"
)

// refusalLife is how long after it was last announced a refused cluster is reported.
const refusalLife = 3 * v1alpha1.AgentRefusalInterval

// Refusal is what a second cluster with the credential of a member says on the member's
// Lease: that it works on nothing, and who it is.
type Refusal struct {
	ClusterUID string    // of the refused cluster
	Said       time.Time // by the clock of that cluster
}

var uidPattern = regexp.MustCompile(`^[0-9a-f-]{36}$`)

// ParseRefusal reads v1alpha1.AnnotationRefusedClusterUID; ok is false for any text
// that no agent writes, which is shown to nobody.
func ParseRefusal(annotation string) (refusal Refusal, ok bool) {
	uid, at, _ := strings.Cut(annotation, " ")
	said, err := time.Parse(time.RFC3339, at)
	return Refusal{uid, said}, err == nil && uidPattern.MatchString(uid)
}

// String is the annotation.
func (r Refusal) String() string { return r.ClusterUID + " " + r.Said.UTC().Format(time.RFC3339) }
