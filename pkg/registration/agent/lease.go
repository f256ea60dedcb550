package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// refusalManager is the field manager of the annotation of a refused cluster, apart from the holder's.
	refusalManager = v1alpha1.AgentFieldManager + "-refused"
	// releaseTimeout is how long giving back the Lease may hold up the end of a term.
	releaseTimeout = 2 * time.Second
)

// errAnotherHolder ends the program: another agent works for this member.
var errAnotherHolder = errors.New("another agent holds the Lease of this member: this one ends and claims it anew before it works again")

// claim is an agent's claim to the Lease of its member, from when its term begins.
type claim struct {
	member  string
	renewed metav1.MicroTime // of the Lease as it was seen last
	holder  string           // that it had then
	since   time.Time        // when it was first seen like that
	alive   bool             // another holder was seen to renew it
	told    time.Time        // when the hub was last told of a refusal
}

// tryClaim looks at the Lease once. ok: this agent holds it.
func (a *Agent) tryClaim(ctx context.Context, c *claim, have *Credential) (ok bool, again time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	hub, err := a.client(a.secrets.configNow())
	var lease *coordinationv1.Lease
	if err == nil {
		lease, err = apply.Found(ctx, hub, leaseKey(have), &coordinationv1.Lease{})
	}
	if err != nil {
		a.status.say(ctx, topicLease, a.noAccess(have, err))
		return false, refusedOr(err)
	}
	self := registration.Claimant{ClusterUID: a.uid, Credential: have.ID, Holder: a.holder}
	verdict := self.Claim(lease, c.sees(lease, a.now()), c.alive)
	if have.ClusterUID != a.uid { // the Secret itself says that it is another cluster's
		verdict = registration.ClaimCloned
	}
	switch verdict {
	case registration.ClaimWorks:
		if err := a.hold(ctx, hub, lease, have); err != nil {
			if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
				a.status.say(ctx, topicLease, a.noAccess(have, err))
			}
			return false, askInterval
		}
		a.status.say(ctx, topicLease, state{reason: ReasonWorking, message: fmt.Sprintf("this cluster works as %s", have.Member)})
		return true, 0
	case registration.ClaimWaits:
		a.status.say(ctx, topicLease, state{reason: "WaitingForHolder", blocks: true, message: fmt.Sprintf("agent %q holds the Lease of %s on the hub; this one works once that has not renewed it for %s",
			*lease.Spec.HolderIdentity, have.Member, registration.HolderSilence)})
		return false, askInterval
	}
	a.refused(ctx, hub, c, lease, have)
	return false, idleInterval
}

// sees takes note of a Lease and returns since when it is as it is.
func (c *claim) sees(lease *coordinationv1.Lease, now time.Time) time.Duration {
	if lease == nil {
		return 0
	}
	renewed, holder := ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}), ptr.Deref(lease.Spec.HolderIdentity, "")
	if c.since.IsZero() || !c.renewed.Equal(&renewed) || c.holder != holder {
		c.alive = c.alive || !c.since.IsZero()
		c.renewed, c.holder, c.since = renewed, holder, now
	}
	return now.Sub(c.since)
}

// refused says that this cluster is a copy, here and to the hub.
func (a *Agent) refused(ctx context.Context, hub client.Client, c *claim, lease *coordinationv1.Lease, have *Credential) {
	first := have.ClusterUID
	if lease != nil && lease.Annotations[v1alpha1.AnnotationClusterUID] != "" {
		first = lease.Annotations[v1alpha1.AnnotationClusterUID]
	}
	message := fmt.Sprintf("this cluster (UID %s of namespace kube-system) has the credential of %s, which is the cluster with UID %s: this one exports and imports nothing, the first keeps what it has. "+
		"Give this cluster a name of its own (on the hub: crossway token create <name>; here: crossway join), or, if it replaces the first, first revoke that (crossway revoke %s)", a.uid, have.Member, first, have.Member)
	if first == a.uid {
		message = fmt.Sprintf("agent %q works as %s with the same credential and the same cluster UID %s, as when an etcd was copied: this cluster exports and imports nothing, the first keeps what it has. "+
			"Give this cluster a name of its own (on the hub: crossway token create <name>; here: crossway join), or, if it replaces the first, stop the agent there and restart this one", c.holder, have.Member, a.uid)
	}
	a.status.say(ctx, topicLease, state{reason: ReasonRefused, blocks: true, wrong: true, message: message})
	if lease == nil || a.now().Sub(c.told) < v1alpha1.AgentRefusalInterval {
		return
	}
	announced := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: lease.Namespace, Name: lease.Name, Annotations: map[string]string{
		v1alpha1.AnnotationRefusedClusterUID: registration.Refusal{ClusterUID: a.uid, Said: a.now()}.String(),
	}}}
	if err := apply.Object(ctx, hub, refusalManager, announced); err != nil {
		a.status.log.Info("could not tell the hub that this cluster is refused", "answer", err.Error())
		return
	}
	c.told = a.now()
}

// noAccess is why the Lease cannot be read or written.
func (a *Agent) noAccess(have *Credential, err error) state {
	w := asked{server: have.Server, member: have.Member, what: "this cluster's credential", now: a.now(), atHub: a.hubNow()}
	_, w.until, _ = have.life()
	return w.failed(err)
}

// hold writes the Lease as this agent's, if it is still as it was read. Without one it
// makes it.
func (a *Agent) hold(ctx context.Context, hub client.Client, lease *coordinationv1.Lease, have *Credential) error {
	self := registration.Claimant{ClusterUID: a.uid, Credential: have.ID, Holder: a.holder}
	manager := client.FieldOwner(v1alpha1.AgentFieldManager)
	if lease == nil {
		key := leaseKey(have)
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		a.sign(self, lease)
		if err := hub.Create(ctx, lease, manager); err != nil {
			return err
		}
	} else {
		before := lease.DeepCopy()
		a.sign(self, lease)
		if err := hub.Patch(ctx, lease, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), manager); err != nil {
			return err
		}
	}
	a.held.Store(lease)
	a.heard(lease)
	return nil
}

func (a *Agent) sign(self registration.Claimant, lease *coordinationv1.Lease) {
	self.Sign(lease, a.now())
	if a.options.Lease != nil {
		maps.Copy(lease.Annotations, a.options.Lease())
	}
}

// Renew renews the Lease until ctx ends, by one request every 10 s, and then gives it
// back. It is run in each term. An error: another agent holds it.
func (a *Agent) Renew(ctx context.Context) error {
	defer a.release()
	ticker := time.NewTicker(v1alpha1.AgentLeaseRenewInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := a.renewOnce(ctx); errors.Is(err, errAnotherHolder) {
			return err
		}
	}
}

// renewOnce renews the Lease as it was written last; if somebody wrote it since, as it is now.
func (a *Agent) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	have, _ := a.secrets.now()
	if have == nil {
		return errNoCredential
	}
	hub, err := a.client(a.secrets.configNow())
	if err != nil {
		return err
	}
	err = a.hold(ctx, hub, a.held.Load().DeepCopy(), have)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		var lease *coordinationv1.Lease
		if lease, err = apply.Found(ctx, hub, leaseKey(have), &coordinationv1.Lease{}); err == nil {
			if holder := holderOf(lease); holder != "" && holder != a.holder {
				a.status.log.Info("another agent holds the Lease", "holder", holder, "clusterUID", lease.Annotations[v1alpha1.AnnotationClusterUID])
				return errAnotherHolder
			}
			err = a.hold(ctx, hub, lease, have)
		}
	}
	switch {
	case err == nil:
		a.status.say(ctx, topicLease, state{reason: ReasonWorking, message: fmt.Sprintf("this cluster works as %s", have.Member)})
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		a.status.say(ctx, topicLease, a.noAccess(have, err))
	default:
		now := a.noAccess(have, err)
		now.blocks = false // what is there goes on
		a.status.say(ctx, topicLease, now)
	}
	return err
}

func holderOf(lease *coordinationv1.Lease) string {
	if lease == nil {
		return ""
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// release gives the Lease back, so that the next agent need not wait.
func (a *Agent) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	lease := a.held.Load()
	config := a.secrets.configNow()
	if lease == nil || config == nil {
		return
	}
	hub, err := a.client(config)
	if err == nil {
		released := lease.DeepCopy()
		released.Spec.HolderIdentity = nil
		err = hub.Patch(ctx, released, client.MergeFromWithOptions(lease, client.MergeFromWithOptimisticLock{}), client.FieldOwner(v1alpha1.AgentFieldManager))
	}
	if err != nil {
		a.status.log.Info("could not give back the Lease on the hub; the next agent waits for its end", "answer", err.Error())
	}
}

func leaseKey(c *Credential) client.ObjectKey {
	return client.ObjectKey{Namespace: v1alpha1.MemberNamespace(c.Member), Name: v1alpha1.AgentLease}
}
