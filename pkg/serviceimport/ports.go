package serviceimport

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// portID is what a port is, whatever its name: two clusters that expose the same
// protocol and number serve the same port.
type portID struct {
	protocol corev1.Protocol
	number   int32
}

func portIDOf(p v1alpha1.ServicePort) portID { return portID{p.Protocol, p.Port} }

// String gives "TCP 80".
func (id portID) String() string { return string(id.protocol) + " " + strconv.Itoa(int(id.number)) }

func (id portID) compare(other portID) int {
	return cmp.Or(cmp.Compare(id.number, other.number), cmp.Compare(id.protocol, other.protocol))
}

// portsByID returns an export's ports. Of two with one identity the first counts.
func portsByID(spec *v1alpha1.MemberExportSpec) map[portID]*v1alpha1.ServicePort {
	ports := make(map[portID]*v1alpha1.ServicePort, len(spec.Ports))
	for i := range spec.Ports {
		if id := portIDOf(spec.Ports[i]); ports[id] == nil {
			ports[id] = &spec.Ports[i]
		}
	}
	return ports
}

func (id portID) exposedBy(e Export) bool { return e.ports[id] != nil }

// nameProperty is the name of a port.
func (id portID) nameProperty() property {
	return property{key: id.key("name"), has: id.exposedBy, equal: func(a, b Export) bool { return a.ports[id].Name == b.ports[id].Name }}
}

// protocolProperty is the appProtocol of a port.
func (id portID) protocolProperty() property {
	return property{key: id.key("appProtocol"), has: id.exposedBy, equal: func(a, b Export) bool { return id.appProtocol(a) == id.appProtocol(b) }}
}

func (id portID) key(of string) string {
	return fleet.PortID(string(id.protocol), id.number) + "." + of
}

func (id portID) appProtocol(e Export) string { return ptr.Deref(e.ports[id].AppProtocol, "") }

// mergePorts returns the union of all exports' ports, by protocol and number, in
// this order: number, protocol. What an import cannot have is two ports of one name,
// as no Service can. So a port is left out while each of its names is that of another
// port. A cluster backs a port if it exposes it with the appProtocol in force. It
// gets no requests for another number, nor in a protocol that it does not speak.
//
// Ports that are not identical in all clusters are a conflict.
func (m *merger) mergePorts() []v1alpha1.FleetServicePort {
	exposed := map[portID]bool{}
	for _, e := range m.exports {
		for _, p := range e.Spec.Ports {
			exposed[portIDOf(p)] = true
		}
	}
	all := slices.SortedFunc(maps.Keys(exposed), portID.compare)
	names := m.namePorts(all)
	var ports []v1alpha1.FleetServicePort
	var found portConflicts
	for _, id := range all {
		name, named := names[id]
		having := id.nameProperty().having(m.exports)
		if !named {
			m.noteLeftOut(id, having)
			found.leftOut(id, having, names)
			continue
		}
		holder := m.decide(id.protocolProperty())
		port := v1alpha1.FleetServicePort{ServicePort: *holder.ports[id].DeepCopy()}
		port.Name = name
		var backing []string
		for _, e := range having {
			if id.appProtocol(e) == id.appProtocol(*holder) {
				backing = append(backing, string(e.Cluster))
			}
		}
		if len(backing) < len(m.exports) {
			slices.Sort(backing)
			port.Clusters = backing
		}
		ports = append(ports, port)
		m.noteNames(id, name, having)
		found.otherProtocols(id, *holder, having)
		found.otherNames(id, name, having)
		found.missing(id, name, having, len(m.exports))
	}
	m.conflicts = append(m.conflicts, found.all()...)
	return ports
}

// namePorts names the ports of the import. First come names in force, then other
// ports that are in force, which need no free name to stay: they keep their last one or
// get that of pushed slices. Then come new ports. Of two ports that want a name, that of
// the senior export has it.
func (m *merger) namePorts(all []portID) map[portID]string {
	names, taken := map[portID]string{}, map[string]bool{}
	give := func(id portID, name string) {
		if _, named := names[id]; !named && !taken[name] {
			names[id], taken[name] = name, true
		}
	}
	bySeniority := m.portsBySeniority(all)
	for _, id := range bySeniority {
		if holder := id.nameProperty().inForce(m.exports, m.last); holder != nil && m.isInForce(id) {
			give(id, holder.ports[id].Name)
		}
	}
	for _, inForce := range []bool{true, false} {
		for _, id := range bySeniority {
			if m.isInForce(id) != inForce {
				continue
			}
			for _, e := range id.nameProperty().having(m.exports) {
				give(id, e.ports[id].Name)
			}
			if inForce && m.last != nil && id.exposedBy(*m.last) {
				give(id, m.last.ports[id].Name)
			}
			if inForce {
				give(id, fleet.PortID(string(id.protocol), id.number))
			}
		}
	}
	return names
}

// isInForce tells whether the import has had a port: as the records say, or else the
// last merge.
func (m *merger) isInForce(id portID) bool {
	property := id.protocolProperty()
	having := property.having(m.exports)
	recordedAs := func(differs bool) func(Export) bool {
		return func(e Export) bool { return e.recordedWith(property.key, differs) }
	}
	if slices.ContainsFunc(having, recordedAs(false)) {
		return true
	}
	leftOut := !slices.ContainsFunc(having, func(e Export) bool { return !recordedAs(true)(e) })
	return m.last != nil && id.exposedBy(*m.last) && !leftOut
}

// portsBySeniority sorts ports by the seniority of the first export that has them.
func (m *merger) portsBySeniority(all []portID) []portID {
	first := map[portID]int{}
	for i, e := range m.exports {
		for _, p := range e.Spec.Ports {
			if _, ok := first[portIDOf(p)]; !ok {
				first[portIDOf(p)] = i
			}
		}
	}
	return slices.SortedStableFunc(slices.Values(all), func(a, b portID) int { return cmp.Compare(first[a], first[b]) })
}

func (m *merger) noteNames(id portID, name string, having []Export) {
	for _, e := range having {
		if e.ports[id].Name != name {
			m.differs[e.Cluster] = append(m.differs[e.Cluster], id.key("name"))
		}
	}
}

func (m *merger) noteLeftOut(id portID, having []Export) {
	for _, e := range having {
		m.differs[e.Cluster] = append(m.differs[e.Cluster], id.key("name"), id.key("appProtocol"))
	}
}

// portConflicts are the differences between the ports of all exports.
type portConflicts struct {
	values    []conflict
	elsewhere []missingPorts
}

// missingPorts are ports that only some clusters have.
type missingPorts struct {
	clusters []fleet.ClusterName
	ports    []string
}

// maxPortConflicts is how many differences of ports a message has.
const maxPortConflicts = 5

func (c *portConflicts) add(message func(to fleet.ClusterName) string) {
	c.values = append(c.values, conflict{mcsv1beta1.ServiceExportReasonPortConflict, message})
}

func (c *portConflicts) otherProtocols(id portID, holder Export, having []Export) {
	d := disagreement{
		property: "the appProtocol of port " + id.String(), inForce: clusterValue{holder.Cluster, cmp.Or(id.appProtocol(holder), "unset")},
		advice: "a cluster gets no requests in another protocol, so make them equal",
	}
	for _, e := range having {
		if id.appProtocol(e) != id.appProtocol(holder) {
			d.losers = append(d.losers, clusterValue{e.Cluster, cmp.Or(id.appProtocol(e), "unset")})
		}
	}
	if len(d.losers) > 0 {
		c.add(d.message)
	}
}

func (c *portConflicts) otherNames(id portID, name string, having []Export) {
	var with, without []Export
	for _, e := range having {
		if e.ports[id].Name == name {
			with = append(with, e)
		} else {
			without = append(without, e)
		}
	}
	if len(without) == 0 {
		return
	}
	if len(with) == 0 { // its clusters name it as another port of the import
		c.add(func(to fleet.ClusterName) string {
			return fmt.Sprintf("port %s keeps the name %q, because %q %s is that of another port; make the ports equal in all clusters",
				id, name, without[0].ports[id].Name, in(without[0].Cluster, to))
		})
		return
	}
	d := disagreement{property: "the name of port " + id.String(), inForce: clusterValue{with[0].Cluster, strconv.Quote(name)},
		advice: "requests are not affected; make them equal in all clusters"}
	for _, e := range without {
		d.losers = append(d.losers, clusterValue{e.Cluster, strconv.Quote(e.ports[id].Name)})
	}
	c.add(d.message)
}

// leftOut says that a port has only names of other ports.
func (c *portConflicts) leftOut(id portID, having []Export, names map[portID]string) {
	name := having[0].ports[id].Name
	var other portID
	for has, of := range names {
		if of == name {
			other = has
		}
	}
	c.add(func(to fleet.ClusterName) string {
		return fmt.Sprintf("port %q is %s, so %s of the same name %s is left out and gets no requests; make them equal or rename one",
			name, other, id, inClusters(clustersOf(having), to))
	})
}

// missing notes that a port is not in all clusters.
func (c *portConflicts) missing(id portID, name string, having []Export, clusters int) {
	if len(having) == clusters {
		return
	}
	port, in := fmt.Sprintf("%s (%q)", id, name), clustersOf(having)
	for i := range c.elsewhere {
		if slices.Equal(c.elsewhere[i].clusters, in) {
			c.elsewhere[i].ports = append(c.elsewhere[i].ports, port)
			return
		}
	}
	c.elsewhere = append(c.elsewhere, missingPorts{in, []string{port}})
}

// all returns the conflicts, those about values first.
func (c *portConflicts) all() []conflict {
	for _, e := range c.elsewhere {
		c.add(func(to fleet.ClusterName) string {
			ports := e.ports
			if more := len(ports) - maxPortConflicts; more > 0 {
				ports = append(slices.Clone(ports[:maxPortConflicts]), fmt.Sprintf("%d more ports", more))
			}
			return fmt.Sprintf("only %s: port %s; give all Services the same ports", inClusters(e.clusters, to), strings.Join(ports, ", "))
		})
	}
	if more := len(c.values) - maxPortConflicts; more > 0 {
		c.values = c.values[:maxPortConflicts]
		c.add(func(fleet.ClusterName) string { return fmt.Sprintf("%d more differences of ports", more) })
	}
	return c.values
}

func clustersOf(exports []Export) []fleet.ClusterName {
	var names []fleet.ClusterName
	for _, e := range exports {
		names = append(names, e.Cluster)
	}
	slices.Sort(names)
	return names
}
