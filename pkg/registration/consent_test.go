package registration_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

func TestMayExport(t *testing.T) {
	for _, c := range []struct {
		patterns  []v1alpha1.NamespacePattern
		namespace string
		want      bool
	}{
		{nil, "shop", false},
		{[]v1alpha1.NamespacePattern{"shop"}, "shop", true},
		{[]v1alpha1.NamespacePattern{"shop"}, "shop2", false},
		{[]v1alpha1.NamespacePattern{"infra", "team-*"}, "team-a", true},
		{[]v1alpha1.NamespacePattern{"team-*"}, "team-", true},
		{[]v1alpha1.NamespacePattern{"team-*"}, "my-team-a", false},
		{[]v1alpha1.NamespacePattern{"*-prod"}, "shop-prod", true},
		{[]v1alpha1.NamespacePattern{"a*b*c"}, "axxbyyc", true},
		{[]v1alpha1.NamespacePattern{"*"}, "shop", true},
		{[]v1alpha1.NamespacePattern{"*"}, "default", false},
		{[]v1alpha1.NamespacePattern{"default"}, "default", true},
		{[]v1alpha1.NamespacePattern{"*", "kube-system", "k*"}, "kube-system", false},
		{[]v1alpha1.NamespacePattern{"*", "crossway-fleet"}, "crossway-fleet", false},
		{[]v1alpha1.NamespacePattern{"*", "member-us-west"}, "member-us-west", false},
	} {
		m := &v1alpha1.MemberCluster{Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: c.patterns}}}
		if got := registration.MayExport(m, c.namespace); got != c.want {
			t.Errorf("%q may export %s: %t, want %t", c.patterns, c.namespace, got, c.want)
		}
		if got := registration.MayImport(m, c.namespace); got != c.want {
			t.Errorf("%q, without spec.imports, may import %s: %t, want %t", c.patterns, c.namespace, got, c.want)
		}
	}
}

func TestMayImport(t *testing.T) {
	m := &v1alpha1.MemberCluster{Spec: v1alpha1.MemberClusterSpec{
		Accepted: true,
		Exports:  v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"shop"}},
		Imports:  &v1alpha1.MemberImportRules{Namespaces: []v1alpha1.NamespacePattern{"infra"}},
	}}
	if registration.MayImport(m, "shop") || !registration.MayImport(m, "infra") || registration.MayExport(m, "infra") {
		t.Error("spec.imports decides about imports, and about nothing else")
	}
	m.Spec.Imports = &v1alpha1.MemberImportRules{}
	if registration.MayImport(m, "shop") {
		t.Error("an empty spec.imports.namespaces allows imports")
	}
}

func TestNoMemberNoConsent(t *testing.T) {
	all := v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}
	deleted := &v1alpha1.MemberCluster{Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: all}}
	deleted.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for what, m := range map[string]*v1alpha1.MemberCluster{"not accepted": {Spec: v1alpha1.MemberClusterSpec{Exports: all}}, "being deleted": deleted} {
		if registration.MayExport(m, "shop") || registration.MayImport(m, "shop") {
			t.Errorf("a cluster that is %s exports or imports", what)
		}
	}
}
