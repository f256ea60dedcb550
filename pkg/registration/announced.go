package registration

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Announced is one EndpointSlice in a member's namespace on the hub, as far as
// its admission depends on it.
type Announced struct {
	Service   fleet.ServiceName
	Created   time.Time // by the hub's clock
	Name      string
	Size      int // how many endpoints it has
	Addresses iter.Seq[netip.Addr]
}

// ReadAnnounced returns what a slice in a member's namespace announces; ok is
// false for one without the labels that name its service, or of host names.
func ReadAnnounced(s *discoveryv1.EndpointSlice) (announced Announced, ok bool) {
	_, service, ok := SourceOf(s)
	return Announced{service, s.CreationTimestamp.Time, s.Name, len(s.Endpoints), func(yield func(netip.Addr) bool) {
		for i := range s.Endpoints {
			if address, ok := AddressOf(&s.Endpoints[i]); ok && !yield(address) {
				return
			}
		}
	}}, ok && s.AddressType != discoveryv1.AddressTypeFQDN
}

// ReadAllAnnounced is ReadAnnounced of all slices in a member's namespace.
func ReadAllAnnounced(all []discoveryv1.EndpointSlice) []Announced {
	out := make([]Announced, 0, len(all))
	for i := range all {
		if announced, ok := ReadAnnounced(&all[i]); ok {
			out = append(out, announced)
		}
	}
	return out
}

// SourceOf returns whose slice of which service a slice in a member's namespace
// is. The namespace says which cluster it is from; no label can claim another.
func SourceOf(s *discoveryv1.EndpointSlice) (cluster fleet.ClusterName, service fleet.ServiceName, ok bool) {
	name, inMember := v1alpha1.MemberOfNamespace(s.Namespace)
	service = fleet.ServiceName{Namespace: s.Labels[v1alpha1.LabelServiceNamespace], Name: s.Labels[v1alpha1.LabelServiceName]}
	return fleet.ClusterName(name), service, inMember && service.Namespace != "" && service.Name != ""
}

// AddressOf returns the address of an endpoint: the first, as all of its
// addresses are the same endpoint (EndpointSlice, addresses).
func AddressOf(e *discoveryv1.Endpoint) (netip.Addr, bool) {
	if len(e.Addresses) == 0 {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(e.Addresses[0])
	return address, err == nil
}

// Endpoints tells which addresses of one service of a member count: edges and
// other members get no others. The zero value has none.
type Endpoints struct {
	admission *Admission
	kept      map[netip.Addr]bool // nil: no limit is exceeded
	leftOut   int
}

// Has tells whether an address counts.
func (e Endpoints) Has(address netip.Addr) bool {
	if e.kept != nil {
		return e.kept[address]
	}
	return e.admission != nil && e.admission.Refuses(address) == ""
}

// LeftOut is how many endpoints do not count because of a limit.
func (e Endpoints) LeftOut() int { return e.leftOut }

// Same tells whether the same addresses count, where the admission is the same.
func (e Endpoints) Same(other Endpoints) bool {
	return (e.admission == nil) == (other.admission == nil) && (e.kept == nil) == (other.kept == nil) && maps.Equal(e.kept, other.kept)
}

// Endpoints returns which endpoints of all slices of a member count, by service:
// with an address that the member may announce, of a namespace that it may
// export, and within its limits. An endpoint is an address: in how many slices it
// is, with which ports, does not matter. The families are counted apart, because
// a dual-stack Service has both addresses of each pod. Ready or not does not
// matter either, so that one which is ready again takes nobody's place.
//
// What exceeds a limit is always the same: the endpoints of the youngest slices,
// by the hub's clock, and within a slice the last. The order of the slices in the
// argument does not matter.
func (a Admission) Endpoints(announced []Announced) map[fleet.ServiceName]Endpoints {
	count := endpointCount{admission: &a, sizes: map[fleet.ServiceName]int{}, services: map[fleet.ServiceName]*serviceCount{}}
	for _, s := range announced {
		if matches(a.Namespaces, s.Service.Namespace) {
			count.sizes[s.Service] += s.Size
			count.size += s.Size
		}
	}
	out := make(map[fleet.ServiceName]Endpoints, len(count.sizes))
	for service := range count.sizes {
		out[service] = Endpoints{admission: &a}
		if count.exceeds(service) {
			count.services[service] = &serviceCount{kept: map[netip.Addr]bool{}}
		}
	}
	if len(count.services) == 0 {
		return out
	}
	inOrder := slices.Clone(announced)
	slices.SortFunc(inOrder, func(a, b Announced) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name)) })
	for _, s := range inOrder {
		count.add(s)
	}
	for service, c := range count.services {
		out[service] = Endpoints{admission: &a, kept: c.kept, leftOut: c.leftOut}
	}
	return out
}

// endpointCount counts the endpoints of a member whose slices may exceed a limit.
type endpointCount struct {
	admission *Admission
	sizes     map[fleet.ServiceName]int // how many endpoints all slices have
	size      int                       // of all services
	services  map[fleet.ServiceName]*serviceCount
	all       [2]int // those that count, by family
}

type serviceCount struct {
	kept    map[netip.Addr]bool
	count   [2]int // by family
	leftOut int
}

// exceeds tells whether a service's endpoints must be counted one by one.
func (c *endpointCount) exceeds(service fleet.ServiceName) bool {
	return c.sizes[service] > c.admission.Limits.EndpointsPerService || c.size > c.admission.Limits.Endpoints
}

func (c *endpointCount) add(s Announced) {
	service := c.services[s.Service]
	if service == nil {
		return
	}
	for address := range s.Addresses {
		family := 0
		if !address.Is4() {
			family = 1
		}
		switch {
		case c.full(service, family): // all that follow are of this family: what exceeds a limit costs no time
			service.leftOut += s.Size
			return
		case !service.kept[address] && c.admission.Refuses(address) == "":
			service.kept[address] = true
			service.count[family]++
			c.all[family]++
		}
		s.Size--
	}
}

func (c *endpointCount) full(s *serviceCount, family int) bool {
	return s.count[family] >= c.admission.Limits.EndpointsPerService || c.all[family] >= c.admission.Limits.Endpoints
}
