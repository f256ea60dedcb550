package hub

import (
	"context"
	"reflect"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// leftOutCounts are how many endpoints of each service are beyond the limits of a
// member. All slices of the member decide that, so it is counted once for all its
// exports: each on its own would read the slices of all others. The zero value may be
// used, by any goroutine.
type leftOutCounts struct {
	mu      sync.Mutex
	members map[string]leftOutOfMember // by namespace
}

type leftOutOfMember struct {
	changes   uint64 // of slices that were seen
	counted   uint64 // the changes when services was counted
	admission registration.Admission
	services  map[fleet.ServiceName]int // those with any
}

// requestsOfSlice are the requests for a slice that changed.
func (c *leftOutCounts) requestsOfSlice(ctx context.Context, o client.Object) []reconcile.Request {
	if _, ofMember := v1alpha1.MemberOfNamespace(o.GetNamespace()); !ofMember {
		return nil // of the hub's own cluster
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members == nil {
		c.members = map[string]leftOutOfMember{}
	}
	member := c.members[o.GetNamespace()]
	member.changes++
	c.members[o.GetNamespace()] = member
	return requestsOfSlice(ctx, o)
}

// of is how many endpoints of a service of a member are left out. all lists the
// member's slices. Where no change has been seen, nobody watches, and nothing is kept.
func (c *leftOutCounts) of(namespace string, service fleet.ServiceName, admission registration.Admission, all func() ([]discoveryv1.EndpointSlice, error)) (int, error) {
	c.mu.Lock()
	member := c.members[namespace]
	c.mu.Unlock()
	if member.changes > 0 && member.counted == member.changes && reflect.DeepEqual(member.admission, admission) {
		return member.services[service], nil
	}
	list, err := all()
	if err != nil {
		return 0, err
	}
	member.counted, member.admission, member.services = member.changes, admission, map[fleet.ServiceName]int{}
	for name, endpoints := range admission.Endpoints(registration.ReadAllAnnounced(list)) {
		if n := endpoints.LeftOut(); n > 0 {
			member.services[name] = n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.members[namespace]; member.changes > 0 {
		member.changes = last.changes // there may be more by now
		c.members[namespace] = member
	}
	return member.services[service], nil
}
