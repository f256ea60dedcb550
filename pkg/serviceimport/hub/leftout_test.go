package hub

import (
	"fmt"
	"net/netip"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// The slices of a member are read once for all of its exports, and again after one of them, or the member's limits, changed.
func TestSlicesOfAMemberAreReadOnce(t *testing.T) {
	service := fleet.ServiceName{Namespace: "shop", Name: "store"}
	slice := discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us", Name: "a", Labels: map[string]string{
		v1alpha1.LabelServiceNamespace: "shop", v1alpha1.LabelServiceName: "store"}}}
	admission := registration.Admission{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Namespaces: []v1alpha1.NamespacePattern{"*"},
		Limits: registration.Limits{EndpointsPerService: 2, Endpoints: 100}}
	add := func() {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", len(slice.Endpoints)+1)}})
	}
	var counts leftOutCounts
	reads := 0
	expect := func(leftOut, wantReads int) {
		t.Helper()
		got, err := counts.of("member-us", service, admission, func() ([]discoveryv1.EndpointSlice, error) {
			reads++
			return []discoveryv1.EndpointSlice{slice}, nil
		})
		testkit.Must(t, err)
		if got != leftOut || reads != wantReads {
			t.Errorf("%d left out after %d reads, want %d after %d", got, reads, leftOut, wantReads)
		}
	}
	for range 3 {
		add()
	}
	expect(1, 1)
	add()
	expect(2, 2) // nobody watches
	counts.requestsOfSlice(t.Context(), &slice)
	expect(2, 3)
	expect(2, 3)
	add()
	counts.requestsOfSlice(t.Context(), &slice)
	expect(3, 4)
	admission.Limits.EndpointsPerService = 5
	expect(0, 5)
	expect(0, 5)
}
