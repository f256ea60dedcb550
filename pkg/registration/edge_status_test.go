package registration_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// A pool says which credentials are connected, those that end first first, and what is wrong with certificates: the worst
// alone.
func TestEdgePoolReport(t *testing.T) {
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}}
	edge := func(pool, id, ca string, age, left time.Duration) registration.ConnectedEdge {
		return registration.ConnectedEdge{Identity: registration.EdgeIdentity{Pool: pool, Credential: id}, CA: ca, Begin: now.Add(-age), End: now.Add(left)}
	}
	const day = 24 * time.Hour
	fresh := edge("us", "aaaaaaaaaa", "ca-2", day, 29*day)
	for _, c := range []struct {
		what   string
		edges  []registration.ConnectedEdge
		fault  error
		reason string
		word   string
		list   string
	}{
		{"nobody", nil, nil, "Valid", "", ""},
		{"all is well", []registration.ConnectedEdge{fresh, fresh, edge("eu", "eeeeeeeeee", "ca-1", day, 0)}, nil, "Valid", "", "aaaaaaaaaa 2"},
		{"due, not late", []registration.ConnectedEdge{edge("us", "bbbbbbbbbb", "ca-2", 21*day, 9*day)}, nil, "Valid", "", "bbbbbbbbbb 1"},
		{"late", []registration.ConnectedEdge{fresh, edge("us", "bbbbbbbbbb", "ca-2", 24*day, 6*day)}, nil, "EndSoon", "bbbbbbbbbb (1 edges, until 2026-01-07", "bbbbbbbbbb 1, aaaaaaaaaa 1"},
		{"a year's, 29 days left", []registration.ConnectedEdge{edge("us", "cccccccccc", "ca-2", 336*day, 29*day)}, nil, "EndSoon", "cccccccccc", "cccccccccc 1"},
		{"the old CA", []registration.ConnectedEdge{fresh, edge("us", "aaaaaaaaaa", "ca-1", day, 28*day)}, nil, "OldCA", "of ca-1", "aaaaaaaaaa 1, aaaaaaaaaa 1"},
		{"no CA", []registration.ConnectedEdge{edge("us", "bbbbbbbbbb", "ca-2", 24*day, 6*day)}, errors.New("it is gone"), "CAMissing", "it is gone", "bbbbbbbbbb 1"},
	} {
		if kept := registration.EdgePoolReport(pool, c.edges, "", c.fault, now); kept.Credentials != nil {
			t.Errorf("%s: without a CA, what showed that there was one is written over", c.what)
		}
		r := registration.EdgePoolReport(pool, c.edges, "ca-2", c.fault, now)
		if got := r.Conditions[0]; got.Reason != c.reason || !strings.Contains(got.Message, c.word) {
			t.Errorf("%s: %s %q, want %s with %q", c.what, got.Reason, got.Message, c.reason, c.word)
		}
		var list []string
		for _, one := range *r.Credentials {
			list = append(list, one.ID+" "+strconv.Itoa(int(one.Edges)))
		}
		if got := strings.Join(list, ", "); got != c.list {
			t.Errorf("%s: credentials %q, want %q", c.what, got, c.list)
		}
	}
}
