package reconciler

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/serviceimport"
)

// storedExports is a cache of what 100 members export: 100 services each, of 1000.
type storedExports struct {
	client.Reader
	members    []v1alpha1.MemberCluster
	namespaces []corev1.Namespace
	exports    []v1alpha1.MemberExport
	ofService  map[string][]v1alpha1.MemberExport
}

func (s *storedExports) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	switch l := list.(type) {
	case *v1alpha1.MemberClusterList:
		l.Items = s.members
	case *corev1.NamespaceList:
		l.Items = s.namespaces
	case *v1alpha1.MemberExportList:
		for _, o := range options {
			if field, ok := o.(client.MatchingFields); ok {
				l.Items = s.ofService[field[indexImport]]
				return nil
			}
		}
		l.Items = append(l.Items, s.exports...) // as a cache copies them
	}
	return nil
}

// remembered merges and remembers, without a cache.
type remembered map[fleet.ServiceName]*serviceimport.History

func (r remembered) Do(_ context.Context, f func(merge mergeFunc) error) error {
	return f(func(service fleet.ServiceName, exports []serviceimport.Export) serviceimport.Merged {
		if r[service] == nil {
			r[service] = &serviceimport.History{}
		}
		return r[service].Merge(exports, nil, metav1.Now().Time)
	})
}

func (remembered) Confirms(*v1alpha1.MemberExport) bool { return true }

func newStoredExports() *storedExports {
	s := &storedExports{ofService: map[string][]v1alpha1.MemberExport{}}
	for m := range 100 {
		name := fmt.Sprintf("m%d", m)
		s.members = append(s.members, v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us", Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}}})
		s.namespaces = append(s.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-" + name, Labels: map[string]string{v1alpha1.LabelMember: name}}})
		for k := range 100 {
			service := v1alpha1.ServiceReference{Namespace: "shop", Name: fmt.Sprintf("s%d", (m+k*10)%1000)}
			s.exports = append(s.exports, v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + name, Name: service.ObjectName(), ResourceVersion: "1"},
				Spec: v1alpha1.MemberExportSpec{Service: service, ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
					Ports: []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}})
		}
	}
	for _, e := range s.exports {
		service, _ := serviceOf(&e)
		s.ofService[service.String()] = append(s.ofService[service.String()], e)
	}
	return s
}

// One of 10,000 exports changed: all are merged again, or those of its service.
func BenchmarkOneExportOf10000(b *testing.B) {
	stored := newStoredExports()
	x := imports{merges: remembered{}}
	var in gateway.Input
	testkit.Must(b, x.list(b.Context(), stored, &in))
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			testkit.Must(b, x.list(b.Context(), stored, &in))
		}
	})
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := x.update(b.Context(), stored, &in, sets.New(fleet.ServiceName{Namespace: "shop", Name: "s7"}))
			testkit.Must(b, err)
		}
	})
}
