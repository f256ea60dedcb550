package check

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Level is how a thing is.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, and will not for ever; or it could not be looked at
	Wrong   Level = "wrong"
)

// Finding is what was seen of one thing.
type Finding struct {
	What    string `json:"what"`
	Level   Level  `json:"level"`
	Message string `json:"message"`
	// Do is what to do; empty where nothing has to be done, or where Message says it.
	Do string `json:"do,omitempty"`
}

// Facts are what the hub's API server says of a fleet.
type Facts struct {
	// Now is the time by the clock of the hub's API server, and Local by that of the
	// machine where the command runs.
	Now, Local time.Time
	// Version is that of the command; "" or "(devel)": unknown.
	Version string
	// Namespace is Crossway's on the hub.
	Namespace string

	Deployment *appsv1.Deployment // of the hub; nil: there is none
	// Lease is that of the replica which leads; nil: none ever did.
	Lease *coordinationv1.Lease
	// Deaf are the replicas of the hub that do not hear all others, with what each hears.
	Deaf []string
	// Sets are the CRDs that a hub needs, as the command has them; CRDs those of the
	// cluster by name.
	Sets []CRDs
	CRDs map[string]*apiextensionsv1.CustomResourceDefinition
	// Secrets are those with certificates, by name.
	Secrets map[string]*corev1.Secret
	Members []Member
	Pools   []v1alpha1.EdgePool
	// Unread says why something could not be read: by the name of a Secret, or one of
	// UnreadDeployment, UnreadLease, UnreadReplicas and UnreadCRDs.
	Unread map[string]string
}

// Keys of Facts.Unread.
const (
	UnreadDeployment = "deployment"
	UnreadLease      = "lease"
	UnreadReplicas   = "replicas"
	UnreadCRDs       = "crds"
)

// CRDs are the CRDs of one API.
type CRDs struct {
	Title string
	Want  []apiextensionsv1.CustomResourceDefinition
	Own   bool // Crossway's own: their schemas must be these
}

// Member is a MemberCluster with the annotations of its agent's Lease.
type Member struct {
	v1alpha1.MemberCluster
	Lease map[string]string
}

// Findings are what is right and wrong: the hub first, then members and edges.
func Findings(f Facts) []Finding {
	return slices.Concat(hub(f), crds(f), certificates(f), asOf(f, members(f)), asOf(f, edges(f)))
}

// Worst is the worst level of findings.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if f.Level == Wrong || f.Level == Warning && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

func ok(what, format string, args ...any) Finding {
	return Finding{What: what, Level: OK, Message: fmt.Sprintf(format, args...)}
}

func warning(what, do, format string, args ...any) Finding {
	return Finding{What: what, Level: Warning, Message: fmt.Sprintf(format, args...), Do: do}
}

func wrong(what, do, format string, args ...any) Finding {
	return Finding{What: what, Level: Wrong, Message: fmt.Sprintf(format, args...), Do: do}
}

// conditions are the findings of the conditions of an object: those of good that are
// not True, and all of bad that are True.
func conditions(what string, all []metav1.Condition, good, bad []string) []Finding {
	var out []Finding
	for _, c := range all {
		if slices.Contains(good, c.Type) && c.Status != metav1.ConditionTrue || slices.Contains(bad, c.Type) && c.Status == metav1.ConditionTrue {
			out = append(out, wrong(what, "", "%s=%s (%s): %s", c.Type, c.Status, c.Reason, c.Message))
		}
	}
	return out
}
