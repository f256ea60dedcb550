package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

const (
	exportsPerMember   = 100
	endpointsPerExport = 10
	// namesPerMember is how many services the fleet has for each member: each name is exported by ten of 100 members.
	namesPerMember = 10
	// addressesPerMember is the size of a member's range, a /20 of 172.16.0.0/12.
	addressesPerMember = 4096
)

// mockMember is a member without a cluster: what its agent writes to the hub comes from here, with the agent's own
// credential.
type mockMember struct {
	number, of int
	config     *rest.Config // of its agent, on the hub
	agent      client.Client
	exports    []service
	owners     []*v1alpha1.MemberExport // of exports; nil: not written yet
}

func (m *mockMember) name() string { return fmt.Sprintf("mock-%d", m.number) }

func (m *mockMember) namespace() string {
	return v1alpha1.MemberNamespace(fleet.ClusterName(m.name()))
}

// credential is the ID of its credential.
func (m *mockMember) credential() string { return fmt.Sprintf("mock%06d", m.number) }

// draw draws the services that it exports: the same in each run.
func (m *mockMember) draw() {
	names := m.of * namesPerMember
	m.exports = nil
	for _, n := range rand.New(rand.NewPCG(1, uint64(m.number))).Perm(names)[:min(exportsPerMember, names)] {
		m.exports = append(m.exports, scaleService(n))
	}
	m.owners = make([]*v1alpha1.MemberExport, len(m.exports))
}

// scaleService is a service of the fleet. Its namespace is one of ten teams'.
func scaleService(n int) service { return service{teamOf(n % scaleTeams), fmt.Sprintf("s%d", n), n} }

// address is one of its range.
func (m *mockMember) address(n int) netip.Addr {
	n += m.number * addressesPerMember
	return netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// slice is what its agent pushes of its k-th export. last is the address of the last endpoint.
func (m *mockMember) slice(k int, last netip.Addr) *discoveryv1.EndpointSlice {
	s := m.exports[k]
	o := s.hubSlice(m.name(), "", 0)
	o.Endpoints = o.Endpoints[:endpointsPerExport]
	for i := range o.Endpoints {
		o.Endpoints[i].Addresses = []string{m.address(k*endpointsPerExport + i).String()}
	}
	o.Endpoints[endpointsPerExport-1].Addresses = []string{last.String()}
	if owner := m.owners[k]; owner != nil {
		o.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "MemberExport", Name: owner.Name, UID: owner.UID, Controller: to(true)}}
	}
	return o
}

// firstLast is the address of a slice's last endpoint before it changed.
func (m *mockMember) firstLast(k int) netip.Addr {
	return m.address(k*endpointsPerExport + endpointsPerExport - 1)
}

// anotherLast is an address that no slice had before, for the fleet's n-th change.
func (m *mockMember) anotherLast(n int) netip.Addr {
	return m.address(exportsPerMember*endpointsPerExport + n%(addressesPerMember-exportsPerMember*endpointsPerExport-1))
}

// pushers is how many exports of a member are written at a time.
const pushers = 4

// push writes all exports, as an agent does: a MemberExport, and then its slice, which it owns. What fails is tried again:
// an API server that is busy does not evaluate each quota in time.
func (m *mockMember) push(ctx context.Context) error {
	m.draw()
	var all errgroup.Group
	all.SetLimit(pushers)
	for k, s := range m.exports {
		all.Go(func() error {
			export := s.memberExport(m.name())
			for {
				err := apply.Object(ctx, m.agent, v1alpha1.AgentFieldManager, export)
				if err == nil {
					m.owners[k] = export
					err = m.write(ctx, k, m.firstLast(k))
				}
				if err == nil || pause(ctx, time.Second) != nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}

// write writes the slice of its k-th export.
func (m *mockMember) write(ctx context.Context, k int, last netip.Addr) error {
	return apply.Object(ctx, m.agent, v1alpha1.AgentFieldManager, m.slice(k, last))
}

// join makes the MemberCluster and a credential that is in force, and the agent that renews its Lease until life ends.
func (m *mockMember) join(ctx, life context.Context, s *Scale) error {
	region := s.regionOf(m.number)
	cluster := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: m.name()}, Spec: v1alpha1.MemberClusterSpec{
		Accepted: true, Exports: exports, Region: region, Zone: fmt.Sprintf("%s-zone-%d", region, m.number%3),
		EndpointCIDRs: []string{netip.PrefixFrom(m.address(0), 20).String()}}}
	if err := s.hub.Create(ctx, cluster); err != nil {
		return err
	}
	before := cluster.DeepCopy()
	cluster.Status.Credential = &v1alpha1.MemberCredential{ID: m.credential(), ClusterUID: m.uid(), Kind: v1alpha1.CredentialCertificate, IssuedTime: metav1.Now()}
	if err := s.hub.Status().Patch(ctx, cluster, client.MergeFrom(before)); err != nil {
		return err
	}
	var err error
	if m.config, err = s.fleet.Hub.As(registration.MemberUser(fleet.ClusterName(m.name()), m.credential()), v1alpha1.MembersGroup); err != nil {
		return err
	}
	m.config.QPS = -1
	if m.agent, err = client.New(m.config, client.Options{Scheme: s.hub.Scheme(), Mapper: s.hub.RESTMapper()}); err != nil {
		return err
	}
	if err := s.awaitJoined(ctx, m); err != nil {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace(), Name: v1alpha1.AgentLease}}
	m.sign(lease)
	if err := m.agent.Create(ctx, lease); err != nil {
		return err
	}
	go m.renew(life, lease)
	return nil
}

func (m *mockMember) uid() string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", m.number) }

func (m *mockMember) sign(lease *coordinationv1.Lease) {
	registration.Claimant{ClusterUID: m.uid(), Credential: m.credential(), Holder: "bench"}.Sign(lease, time.Now())
}

// renew renews the Lease, one write at a time, as long as life lasts. A failed one is tried again at the next turn.
func (m *mockMember) renew(life context.Context, lease *coordinationv1.Lease) {
	for pause(life, v1alpha1.AgentLeaseRenewInterval) == nil {
		before := lease.DeepCopy()
		m.sign(lease)
		limited, cancel := context.WithTimeout(life, v1alpha1.AgentLeaseRenewInterval)
		if m.agent.Patch(limited, lease, client.MergeFrom(before)) != nil {
			lease = before
		}
		cancel()
	}
}

// awaitJoined waits until a member's agent can write: it is bound to its Role, and its quota is counted.
func (s *Scale) awaitJoined(ctx context.Context, m *mockMember) error {
	for {
		var cluster v1alpha1.MemberCluster
		var quota corev1.ResourceQuota
		err := s.hub.Get(ctx, client.ObjectKey{Name: m.name()}, &cluster)
		if err == nil {
			err = s.hub.Get(ctx, client.ObjectKey{Namespace: m.namespace(), Name: registration.RoleName}, &quota)
		}
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err == nil && meta.IsStatusConditionTrue(cluster.Status.Conditions, condition.MemberJoinedType) && len(quota.Status.Used) == len(quota.Spec.Hard) {
			err := m.agent.Get(ctx, client.ObjectKey{Namespace: m.namespace(), Name: v1alpha1.AgentLease}, &coordinationv1.Lease{})
			if !apierrors.IsForbidden(err) {
				return client.IgnoreNotFound(err)
			}
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("member %s has not joined: %w", m.name(), err)
		}
	}
}

// join lets all members join.
func (s *Scale) join(ctx context.Context) error {
	return each(s.members, func(m *mockMember) error { return m.join(ctx, s.life, s) })
}

// export has all members push their exports at once.
func (s *Scale) export(ctx context.Context) error {
	began := time.Now()
	errs := make(chan error, len(s.members))
	for _, m := range s.members {
		go func() { errs <- m.push(ctx) }()
	}
	for range s.members {
		if err := <-errs; err != nil {
			return err
		}
	}
	s.figures["scale_pushed_s"] = Value(time.Since(began).Seconds())
	return nil
}
