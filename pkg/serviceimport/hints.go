package serviceimport

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

const (
	// noZone is the hint of endpoints in other regions: a zone that no node has.
	noZone = "another-region"
	// maxZoneHints is how many zones the API takes for one endpoint.
	maxZoneHints = 8
)

// hint makes kube-proxy prefer the endpoints of the member's own region: they have
// hints for every zone of the member, and all others a hint for none of them.
//
// kube-proxy takes the ready endpoints with a hint for its node's zone, if each
// ready endpoint has hints. If none has one for that zone, it takes all
// (topologyModeFromHints in k8s.io/kubernetes/pkg/proxy/topology.go). So it goes
// to the other regions by itself, when the last ready endpoint of the own region
// goes, and no hint changes with an endpoint's readiness. A node without a zone
// is in zone "" there. So is any node whose kube-proxy missed its own zone: it adds
// its handler to an informer that runs already, and only then says who wants to
// know (NewNodeTopologyConfig in cmd/kube-proxy/app/server.go). So there is always
// a hint for zone "".
//
// Without a known region, or in a member with more zones than an endpoint may have
// hints, there are none: all endpoints are used alike.
func (e Endpoints) hint(imported []discoveryv1.EndpointSlice) {
	region := e.Import.Annotations[v1alpha1.AnnotationRegion]
	if !slices.Contains(e.Zones, "") {
		e.Zones = append([]string{""}, e.Zones...)
	}
	known := region != "" && len(e.Zones) <= maxZoneHints
	inRegion := func(s *discoveryv1.EndpointSlice) bool { return s.Labels[v1alpha1.LabelSourceRegion] == region }
	served := e.servedZones(imported, inRegion)
	for i := range imported {
		for j := range imported[i].Endpoints {
			endpoint := &imported[i].Endpoints[j]
			endpoint.Hints = nil
			if known {
				endpoint.Hints = &discoveryv1.EndpointHints{ForZones: e.zonesFor(endpoint, inRegion(&imported[i]), served)}
			}
		}
	}
}

// zonesFor are the hints of one endpoint; there is always one.
func (e Endpoints) zonesFor(endpoint *discoveryv1.Endpoint, inRegion bool, served map[string]bool) []discoveryv1.ForZone {
	var hints []discoveryv1.ForZone
	for _, zone := range e.Zones {
		if inRegion && (!served[zone] || zone == ptr.Deref(endpoint.Zone, "")) {
			hints = append(hints, discoveryv1.ForZone{Name: zone})
		}
	}
	if len(hints) == 0 {
		hints = []discoveryv1.ForZone{{Name: noZone}}
	}
	return hints
}

// servedZones are the zones with ready endpoints of their own, if the import's
// trafficDistribution prefers those. Its nodes then use no other endpoints. A node
// of another cluster is nobody's own, so PreferSameNode means the same zone.
func (e Endpoints) servedZones(imported []discoveryv1.EndpointSlice, inRegion func(*discoveryv1.EndpointSlice) bool) map[string]bool {
	served := map[string]bool{}
	if !prefersClose(e.Import) {
		return served
	}
	for i := range imported {
		for _, endpoint := range imported[i].Endpoints {
			if inRegion(&imported[i]) && ptr.Deref(endpoint.Conditions.Ready, true) {
				served[ptr.Deref(endpoint.Zone, "")] = true
			}
		}
	}
	delete(served, "") // an endpoint of an unknown zone is nobody's own
	return served
}

// prefersClose tells whether an import's trafficDistribution prefers the endpoints of
// the own zone or node.
func prefersClose(i *mcsv1beta1.ServiceImport) bool {
	closest := []string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}
	return slices.Contains(closest, ptr.Deref(i.Spec.TrafficDistribution, ""))
}

// hasAll tells whether have has every entry of want.
func hasAll(have, want map[string]string) bool {
	for k, v := range want {
		if value, ok := have[k]; !ok || value != v {
			return false
		}
	}
	return true
}

func equal(a, b any) bool { return apiequality.Semantic.DeepEqual(a, b) }
