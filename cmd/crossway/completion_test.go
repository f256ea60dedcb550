package main

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// The shell completes names of the hub, and contexts of the kubeconfig.
func TestCompletion(t *testing.T) {
	hub, _ := newFleet(t)
	hub.member("us-west", v1alpha1.MemberClusterSpec{Region: "us"})
	hub.create(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "eu"},
		Spec: v1alpha1.EdgePoolSpec{Region: "eu", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.2.0/24"}}}})
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"accept", ""}, "us-west\tus\n"},
		{[]string{"revoke", "--edge", ""}, "eu\teu\n"},
		{[]string{"leave", "us-west", "--member-context", ""}, "hub\nus-west\n"},
		{[]string{"accept", "us-west", ""}, ":4"}, // one name is all, and no file
		{[]string{"le"}, "leave\t"},
	} {
		args := append([]string{"__complete", "--kubeconfig", hub.kubeconfig}, c.words...)
		if out, err := hub.complete(args); err != nil || !strings.HasPrefix(out, c.want) {
			t.Errorf("%q completes to %q, %v", c.words, out, err)
		}
	}
}
