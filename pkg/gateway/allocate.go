package gateway

import (
	"net/netip"
	"slices"
	"strings"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Allocate allocates one address to each Gateway of ours in every EdgePool that
// serves it. It returns copies of the pools whose status.allocations changed, by
// name. A Gateway keeps its address as long as it exists and a block of the pool
// contains the address, even if the pool no longer serves the Gateway. The
// addresses of a deleted Gateway are free again. No address is allocated twice,
// also where the blocks of two pools overlap.
func Allocate(in Input) []v1alpha1.EdgePool {
	b := &build{in: in, index: &index{}}
	b.index.addClasses(in)
	pools := make([]*v1alpha1.EdgePool, 0, len(in.Pools))
	for i := range in.Pools {
		pools = append(pools, in.Pools[i].DeepCopy())
	}
	slices.SortFunc(pools, func(x, y *v1alpha1.EdgePool) int { return strings.Compare(x.Name, y.Name) })

	changed := map[string]bool{}
	exists := make(map[fleet.ObjectName]bool, len(in.Gateways))
	for i := range in.Gateways {
		exists[fleet.ObjectName{Namespace: in.Gateways[i].Namespace, Name: in.Gateways[i].Name}] = true
	}
	for _, pool := range pools {
		before := len(pool.Status.Allocations)
		pool.Status.Allocations = slices.DeleteFunc(pool.Status.Allocations, func(a v1alpha1.AddressAllocation) bool {
			return !exists[allocationOwner(a)] || !hasAddress(pool, a.Address)
		})
		changed[pool.Name] = len(pool.Status.Allocations) != before
	}
	b.allocate(pools, changed)
	var result []v1alpha1.EdgePool
	for _, pool := range pools {
		if changed[pool.Name] {
			result = append(result, *pool)
		}
	}
	return result
}

// allocate adds the missing allocations, the oldest Gateway first.
func (b *build) allocate(pools []*v1alpha1.EdgePool, changed map[string]bool) {
	taken := map[netip.Addr]bool{}
	for _, pool := range pools {
		addTaken(pool, taken)
	}
	for _, gateway := range sortedByAge(b.in.Gateways) {
		class := b.index.classes[string(gateway.Spec.GatewayClassName)]
		if class == nil {
			continue
		}
		parameters, problem := b.gatewayParameters(gateway, class)
		if problem != "" {
			continue
		}
		name := fleet.ObjectName{Namespace: gateway.Namespace, Name: gateway.Name}
		for _, pool := range pools {
			has := func(a v1alpha1.AddressAllocation) bool { return allocationOwner(a) == name }
			if !servedBy(parameters, pool) || slices.ContainsFunc(pool.Status.Allocations, has) {
				continue
			}
			address := firstFree(pool, taken)
			if !address.IsValid() {
				continue // the Gateway's condition Programmed reports it
			}
			taken[address], changed[pool.Name] = true, true
			pool.Status.Allocations = append(pool.Status.Allocations, v1alpha1.AddressAllocation{
				Gateway: v1alpha1.GatewayReference{Namespace: name.Namespace, Name: name.Name}, Address: address.String(),
			})
		}
	}
	for _, pool := range pools {
		if changed[pool.Name] {
			slices.SortFunc(pool.Status.Allocations, func(x, y v1alpha1.AddressAllocation) int { return allocationOwner(x).Compare(allocationOwner(y)) })
		}
	}
}

// hasAddress says whether a block of the pool contains an address. Edges serve no other.
func hasAddress(pool *v1alpha1.EdgePool, text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && slices.ContainsFunc(pool.Spec.Addresses, func(block v1alpha1.AddressBlock) bool {
		prefix, err := netip.ParsePrefix(block.CIDR)
		return err == nil && prefix.Contains(address)
	})
}

func allocationOwner(a v1alpha1.AddressAllocation) fleet.ObjectName {
	return fleet.ObjectName{Namespace: a.Gateway.Namespace, Name: a.Gateway.Name}
}

func takenAddresses(pools []v1alpha1.EdgePool) map[netip.Addr]bool {
	taken := map[netip.Addr]bool{}
	for i := range pools {
		addTaken(&pools[i], taken)
	}
	return taken
}

func addTaken(pool *v1alpha1.EdgePool, taken map[netip.Addr]bool) {
	for _, allocation := range pool.Status.Allocations {
		if address, err := netip.ParseAddr(allocation.Address); err == nil {
			taken[address] = true
		}
	}
}

// firstFree is the lowest free address of the first block of a pool that has
// one; the zero Addr if none has. Network and broadcast addresses of IPv4 blocks
// of four and more addresses are never allocated.
func firstFree(pool *v1alpha1.EdgePool, taken map[netip.Addr]bool) netip.Addr {
	for _, block := range pool.Spec.Addresses {
		prefix, err := netip.ParsePrefix(block.CIDR)
		if err != nil {
			continue // the CRD's schema rejects it
		}
		prefix = prefix.Masked()
		ends := prefix.Addr().Is4() && prefix.Bits() <= 30
		address := prefix.Addr()
		if ends {
			address = address.Next()
		}
		for ; address.IsValid() && prefix.Contains(address); address = address.Next() {
			broadcast := ends && !(address.Next().IsValid() && prefix.Contains(address.Next()))
			if !taken[address] && !broadcast {
				return address
			}
		}
	}
	return netip.Addr{}
}
