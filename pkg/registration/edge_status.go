package registration

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// ConnectedEdge is an edge that is connected, and its certificate.
type ConnectedEdge struct {
	Identity   EdgeIdentity
	CA         string // that signed it
	Begin, End time.Time
}

// maxEdgeCredentials bounds status.credentials of an EdgePool.
const maxEdgeCredentials = 64

// EdgePoolReport is what a pool's status says of certificates: of its connected edges',
// and fault, why there is no CA to sign them with. ca is the name of the CA that signs; ""
// if there is none: then the credentials of before stay, which show that there was one.
func EdgePoolReport(pool *v1alpha1.EdgePool, edges []ConnectedEdge, ca string, fault error, now time.Time) condition.Report {
	all := edgeCredentials(pool.Name, edges)
	var soon, old []string
	for _, c := range all {
		text := fmt.Sprintf("%s (%d edges, until %s, of %s)", c.ID, c.Edges, c.ExpirationTime.UTC().Format(time.RFC3339), c.CA)
		if slices.ContainsFunc(edges, func(e ConnectedEdge) bool {
			return e.Identity.Credential == c.ID && e.CA == c.CA && EndsSoon(e.End, now, e.End.Sub(e.Begin))
		}) {
			soon = append(soon, text)
		}
		if ca != "" && c.CA != ca {
			old = append(old, text)
		}
	}
	verdict := condition.EdgePoolCertificatesValid()
	switch {
	case fault != nil:
		verdict = condition.EdgePoolCAMissing(fault.Error())
	case len(soon) > 0:
		verdict = condition.EdgePoolCertificatesEndSoon(few(soon))
	case len(old) > 0:
		verdict = condition.EdgePoolOldCA(few(old))
	}
	ref := condition.Ref{Kind: condition.EdgePool, Name: fleet.ObjectName{Name: pool.Name}, Generation: pool.Generation}
	report := condition.Report{Ref: ref, Conditions: []condition.Condition{verdict}}
	if all = all[:min(len(all), maxEdgeCredentials)]; ca != "" {
		report.Credentials = &all
	}
	return report
}

// EndsSoon says that a certificate should have been renewed by now, or that nobody renews it
// by itself: less than a quarter of its life is left, and less than 30 days.
func EndsSoon(end, now time.Time, life time.Duration) bool {
	return end.Sub(now) < min(30*24*time.Hour, life/4)
}

// edgeCredentials are the credentials of a pool's connected edges, those that end first first.
func edgeCredentials(pool string, edges []ConnectedEdge) []v1alpha1.EdgeCredential {
	type key struct{ id, ca string }
	found := map[key]*v1alpha1.EdgeCredential{}
	for _, e := range edges {
		if e.Identity.Pool != pool {
			continue
		}
		k := key{e.Identity.Credential, e.CA}
		c := found[k]
		if c == nil {
			c = &v1alpha1.EdgeCredential{ID: k.id, CA: k.ca, ExpirationTime: metav1.NewTime(e.End)}
			found[k] = c
		}
		c.Edges++
		if e.End.Before(c.ExpirationTime.Time) {
			c.ExpirationTime = metav1.NewTime(e.End)
		}
	}
	var all []v1alpha1.EdgeCredential
	for _, c := range found {
		all = append(all, *c)
	}
	slices.SortFunc(all, func(a, b v1alpha1.EdgeCredential) int {
		return cmp.Or(a.ExpirationTime.Compare(b.ExpirationTime.Time), strings.Compare(a.ID, b.ID), strings.Compare(a.CA, b.CA))
	})
	return all
}
