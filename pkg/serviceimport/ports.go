package serviceimport

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// mergedPort is one port of the FleetService while exports are added to it.
type mergedPort struct {
	port   v1alpha1.ServicePort
	winner fleet.ClusterName
	offers map[fleet.ClusterName]bool // clusters that serve the port
	losers []clusterValue
}

// mergePorts returns the union of all exports' ports, those of the oldest
// export first. Two ports are the same port if their names are equal, or else
// if protocol and number are. The oldest export of a port decides its values.
//
// A cluster whose port of the same name and protocol has another number or
// appProtocol still serves it: endpoints are found by port name, so the
// conflict costs no traffic. A cluster whose protocol differs, or whose port of
// that number has another name, does not serve it.
func mergePorts(byAge []Export) ([]v1alpha1.FleetServicePort, []conflict) {
	union := unionOf(byAge)
	for _, e := range byAge {
		for _, p := range e.Spec.Ports {
			union.add(e.Cluster, p)
		}
	}
	var ports []v1alpha1.FleetServicePort
	var conflicts []conflict
	for _, m := range union {
		port := v1alpha1.FleetServicePort{ServicePort: *m.port.DeepCopy()}
		if len(m.offers) < len(byAge) {
			port.Clusters = sortedClusters(m.offers)
		}
		ports = append(ports, port)
		if len(m.losers) > 0 {
			conflicts = append(conflicts, conflict{
				reason:   string(mcsv1beta1.ServiceExportReasonPortConflict),
				property: "port " + portName(m.port), winner: clusterValue{m.winner, portValue(m.port)},
				losers: m.losers, advice: "make them equal or rename one",
			})
		}
	}
	return ports, conflicts
}

type portUnion []*mergedPort

// unionOf returns the ports of the FleetService: the first of each name and of
// each protocol and number.
func unionOf(byAge []Export) portUnion {
	var union portUnion
	for _, e := range byAge {
		for _, p := range e.Spec.Ports {
			if union.named(p) == nil && union.numbered(p) == nil {
				union = append(union, &mergedPort{port: p, winner: e.Cluster, offers: map[fleet.ClusterName]bool{}})
			}
		}
	}
	return union
}

func (u portUnion) named(p v1alpha1.ServicePort) *mergedPort {
	return u.find(func(m *mergedPort) bool { return m.port.Name == p.Name })
}

func (u portUnion) numbered(p v1alpha1.ServicePort) *mergedPort {
	return u.find(func(m *mergedPort) bool { return m.port.Protocol == p.Protocol && m.port.Port == p.Port })
}

func (u portUnion) find(is func(*mergedPort) bool) *mergedPort {
	if i := slices.IndexFunc(u, is); i >= 0 {
		return u[i]
	}
	return nil
}

// add adds one cluster's export of one port.
func (u portUnion) add(cluster fleet.ClusterName, p v1alpha1.ServicePort) {
	m := u.named(p)
	if m == nil {
		m = u.numbered(p)
		m.losers = append(m.losers, clusterValue{cluster, portValue(p) + " with the name " + portName(p)})
		return
	}
	if m.port.Protocol == p.Protocol {
		m.offers[cluster] = true
	}
	if portValue(m.port) != portValue(p) {
		m.losers = append(m.losers, clusterValue{cluster, portValue(p)})
	}
}

// portValue returns a port without its name: "TCP 8080 (kubernetes.io/h2c)".
func portValue(p v1alpha1.ServicePort) string {
	if p.AppProtocol == nil {
		return fmt.Sprintf("%s %d", p.Protocol, p.Port)
	}
	return fmt.Sprintf("%s %d (%s)", p.Protocol, p.Port, *p.AppProtocol)
}

func portName(p v1alpha1.ServicePort) string {
	if p.Name == "" {
		return "without a name"
	}
	return fmt.Sprintf("%q", p.Name)
}

// mergeFamilies returns the IP families that all exports have, in the order of
// the oldest export that names any: a family that one cluster lacks would reach
// only part of the endpoints. If there is none, the oldest export's families
// count and the other clusters' endpoints cannot be reached, which is a
// conflict (KEP-1645, IPFamilyConflict).
func mergeFamilies(byAge []Export) ([]corev1.IPFamily, []conflict) {
	named := slices.DeleteFunc(slices.Clone(byAge), func(e Export) bool { return len(e.Spec.IPFamilies) == 0 })
	if len(named) == 0 {
		return nil, nil
	}
	first := named[0]
	common := slices.Clone(first.Spec.IPFamilies)
	c := conflict{
		reason: string(mcsv1beta1.ServiceExportReasonIPFamilyConflict), property: "ipFamilies",
		winner: clusterValue{first.Cluster, fmt.Sprint(first.Spec.IPFamilies)}, advice: "give all Services one family in common",
	}
	for _, e := range named[1:] {
		common = slices.DeleteFunc(common, func(f corev1.IPFamily) bool { return !slices.Contains(e.Spec.IPFamilies, f) })
		if !slices.Equal(e.Spec.IPFamilies, first.Spec.IPFamilies) {
			c.losers = append(c.losers, clusterValue{e.Cluster, fmt.Sprint(e.Spec.IPFamilies)})
		}
	}
	if len(common) > 0 {
		return common, nil
	}
	return slices.Clone(first.Spec.IPFamilies), []conflict{c}
}
