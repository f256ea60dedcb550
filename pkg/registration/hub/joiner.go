package hub

import (
	"context"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// joinFieldManager owns what the Joiner writes of a MemberCluster's status. The
// Registrar applies the rest under another name, which leaves this as it is.
const joinFieldManager = v1alpha1.HubFieldManager + "-joining"

// accessEnds is how long an API server may let in whom a RoleBinding named that was deleted:
// each follows RoleBindings by a watch.
const accessEnds = time.Second

// decisionsAtOnce is how many requests of one member are decided before another
// member's turn.
const decisionsAtOnce = 20

// Joiner decides about the CertificateSigningRequests of members and of join tokens,
// writes status.credential and status.joinRequest, and deletes join accounts that are
// used or have ended.
//
// A decision is written in this order: which cluster the join account belongs to, the
// MemberCluster's status, the approval. Each is written only if its object is as it
// was read. So of two clusters with one token, one gets it, and a hub that ends in
// between goes on where it was. Where the name goes to another cluster, the access of the
// former one ends before its exports are deleted, and both before the status is written.
type Joiner struct {
	client client.Client
	direct client.Client // reads and waits for no cache
	kind   v1alpha1.CredentialKind
	now    func() time.Time
}

// NewJoiner makes a Joiner of the hub's own cluster. kind is what members get.
func NewJoiner(c cluster.Cluster, kind v1alpha1.CredentialKind) (*Joiner, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	direct, err := client.New(c.GetConfig(), client.Options{HTTPClient: c.GetHTTPClient(), Scheme: c.GetScheme(), Mapper: c.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("make a client without a cache: %w", err)
	}
	return &Joiner{client: waiting, direct: direct, kind: kind, now: time.Now}, nil
}

// joining is what one member's requests depend on.
type joining struct {
	cluster  fleet.ClusterName
	member   *v1alpha1.MemberCluster // nil: there is none
	requests []registration.JoinRequest
	csrs     map[string]*certificatesv1.CertificateSigningRequest
	accounts map[string]*corev1.ServiceAccount // join accounts by name
	holders  []*corev1.ServiceAccount          // accounts whose tokens are credentials
	used     string                            // the credential that renews the member's Lease
	usedBy   string                            // UID of the cluster that did
}

// Reconcile decides about one member's requests. The key is its name.
func (j *Joiner) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := j.read(ctx, request.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	now := j.now()
	plan := registration.PlanJoin(s.member, s.requests, s.accounts, j.kind, now, decisionsAtOnce)
	if s.changesCluster(plan) {
		ended, err := j.endAccess(ctx, s, plan.Credential)
		switch {
		case err != nil:
			return reconcile.Result{}, err
		case !ended:
			return reconcile.Result{RequeueAfter: accessEnds}, nil
		}
	}
	if err := j.carryOut(ctx, s, plan); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // somebody wrote meanwhile: judge again
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		return reconcile.Result{}, err
	}
	if err := j.cleanUp(ctx, s, plan, now); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: s.next(len(plan.Verdicts), now)}, nil
}

func (j *Joiner) read(ctx context.Context, name string) (*joining, error) {
	s := &joining{cluster: fleet.ClusterName(name), csrs: map[string]*certificatesv1.CertificateSigningRequest{}, accounts: map[string]*corev1.ServiceAccount{}}
	var err error
	if s.member, err = apply.Found(ctx, j.client, types.NamespacedName{Name: name}, &v1alpha1.MemberCluster{}); err != nil {
		return nil, err
	}
	var csrs certificatesv1.CertificateSigningRequestList
	if err := j.client.List(ctx, &csrs, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list CertificateSigningRequests: %w", err)
	}
	for i := range csrs.Items {
		if cluster, ok := registration.MemberOfRequester(&csrs.Items[i]); !ok || cluster != s.cluster {
			continue
		}
		if r, ok := registration.ReadJoinRequest(&csrs.Items[i]); ok {
			s.requests = append(s.requests, r)
			s.csrs[r.Name] = &csrs.Items[i]
		}
	}
	var accounts corev1.ServiceAccountList
	if err := j.client.List(ctx, &accounts, client.InNamespace(v1alpha1.MembersNamespace)); err != nil {
		return nil, fmt.Errorf("list ServiceAccounts in %s: %w", v1alpha1.MembersNamespace, err)
	}
	for i := range accounts.Items {
		account := &accounts.Items[i]
		if cluster, _, ok := registration.ParseMemberJoinUser(account.Name); ok && cluster == s.cluster {
			s.accounts[account.Name] = account
		} else if cluster, _, ok := registration.ParseMemberAccount(account.Name); ok && cluster == s.cluster {
			s.holders = append(s.holders, account)
		}
	}
	if s.lacksMember() {
		if s.member, err = apply.Found(ctx, j.direct, types.NamespacedName{Name: name}, &v1alpha1.MemberCluster{}); err != nil {
			return nil, err
		}
	}
	lease, err := apply.Found(ctx, j.client, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(name), Name: v1alpha1.AgentLease}, &coordinationv1.Lease{})
	if err != nil {
		return nil, err
	}
	if lease != nil {
		s.used, s.usedBy = lease.Annotations[v1alpha1.AnnotationCredential], lease.Annotations[v1alpha1.AnnotationClusterUID]
	}
	return s, nil
}

// lacksMember tells whether a join account is for a MemberCluster that the cache does not have. A token may be made a
// moment before it is used, and each kind's cache follows by itself: the account would be deleted as one of nobody.
func (s *joining) lacksMember() bool {
	for _, account := range s.accounts {
		if s.member == nil || !registration.MadeFor(account, s.member) {
			return true
		}
	}
	return false
}

// carryOut writes a plan.
func (j *Joiner) carryOut(ctx context.Context, s *joining, plan registration.JoinPlan) error {
	for _, v := range plan.Verdicts {
		if account := s.accounts[v.Request.Account]; v.UsesToken() && account != nil {
			if err := j.claim(ctx, account, v.Request); err != nil {
				return err
			}
		}
	}
	if s.changesCluster(plan) {
		if err := j.removeExports(ctx, s); err != nil {
			return err
		}
	}
	if err := j.record(ctx, s.member, plan); err != nil {
		return err
	}
	for _, v := range plan.Verdicts {
		if v.Decision == registration.JoinWaits {
			continue
		}
		csr := s.csrs[v.Request.Name]
		if v.Decision == registration.JoinApproved && j.kind == v1alpha1.CredentialServiceAccountToken {
			if err := j.ensureHolder(ctx, v.Request, csr.Spec.Username); err != nil {
				return err
			}
		}
		if _, err := decide(ctx, j.client, csr, v.Condition, j.now()); err != nil {
			return err
		}
	}
	return nil
}

// changesCluster tells whether a plan gives the member's name to another cluster than the
// one whose exports are there.
func (s *joining) changesCluster(plan registration.JoinPlan) bool {
	if plan.Credential == nil || s.usedBy == "" || s.usedBy == plan.Credential.ClusterUID {
		return false
	}
	has := registration.InForce(s.member)
	return has == nil || has.ClusterUID != plan.Credential.ClusterUID
}

// endAccess deletes the RoleBinding of a member's name if it names the agent of the former
// cluster, which would else export again what removeExports deletes. ended: there was none,
// and the former agent is let in no more. The Registrar binds nobody before the status names
// the new credential.
func (j *Joiner) endAccess(ctx context.Context, s *joining, next *v1alpha1.MemberCredential) (ended bool, err error) {
	key := types.NamespacedName{Namespace: v1alpha1.MemberNamespace(s.cluster), Name: registration.RoleName}
	binding, err := apply.Found(ctx, j.direct, key, &rbacv1.RoleBinding{})
	if err != nil || binding == nil {
		return err == nil, err
	}
	user := registration.CredentialUser(s.cluster, next.Kind, next.ID)
	if !slices.ContainsFunc(binding.Subjects, func(bound rbacv1.Subject) bool { return bound.Name != user }) {
		return true, nil
	}
	return false, apply.Remove(ctx, j.direct, binding)
}

// removeExports deletes what the former cluster of a member's name exported, before another
// gets its credential: its endpoints would count as those of the other. The garbage
// collector deletes their slices.
func (j *Joiner) removeExports(ctx context.Context, s *joining) error {
	var exports v1alpha1.MemberExportList
	if err := j.direct.List(ctx, &exports, client.InNamespace(v1alpha1.MemberNamespace(s.cluster))); err != nil {
		return fmt.Errorf("list MemberExports of %s: %w", s.cluster, err)
	}
	for i := range exports.Items {
		if err := client.IgnoreNotFound(j.direct.Delete(ctx, &exports.Items[i])); err != nil {
			return fmt.Errorf("delete what cluster %s exported as %s: %w", s.usedBy, s.cluster, err)
		}
	}
	return nil
}

// claim notes on a join account whose it is: the first request that may get a credential by it.
func (j *Joiner) claim(ctx context.Context, account *corev1.ServiceAccount, r registration.JoinRequest) error {
	if uid, id := registration.UsedBy(account); uid == r.ClusterUID && id == r.ID {
		return nil
	}
	if err := j.client.Patch(ctx, registration.Claimed(account, r), client.MergeFromWithOptions(account, client.MergeFromWithOptimisticLock{}), client.FieldOwner(joinFieldManager)); err != nil {
		return fmt.Errorf("note who uses ServiceAccount %s: %w", account.Name, err)
	}
	return nil
}

// record writes status.credential and status.joinRequest.
func (j *Joiner) record(ctx context.Context, member *v1alpha1.MemberCluster, plan registration.JoinPlan) error {
	if member == nil || apiequality.Semantic.DeepEqual(member.Status.Credential, plan.Credential) && apiequality.Semantic.DeepEqual(member.Status.JoinRequest, plan.JoinRequest) {
		return nil
	}
	before := member.DeepCopy()
	member.Status.Credential, member.Status.JoinRequest = plan.Credential, plan.JoinRequest
	if err := j.client.Status().Patch(ctx, member, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(joinFieldManager)); err != nil {
		return fmt.Errorf("write the credential of MemberCluster %s: %w", member.Name, err)
	}
	return nil
}

// decide writes the approval or denial of a request that is still as it was read, and
// returns it as it is then.
func decide(ctx context.Context, c client.Client, csr *certificatesv1.CertificateSigningRequest, verdict condition.Condition, at time.Time) (*certificatesv1.CertificateSigningRequest, error) {
	csr = csr.DeepCopy()
	now := metav1.NewTime(at)
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.RequestConditionType(verdict.Type), Status: corev1.ConditionStatus(verdict.Status), Reason: verdict.Reason, Message: verdict.Message,
		LastUpdateTime: now, LastTransitionTime: now,
	})
	if err := c.SubResource("approval").Update(ctx, csr, client.FieldOwner(joinFieldManager)); err != nil {
		return nil, fmt.Errorf("decide about CertificateSigningRequest %s: %w", csr.Name, err)
	}
	return csr, nil
}

// ensureHolder makes the ServiceAccount whose tokens are a credential, and lets it and
// its requester make tokens of it.
func (j *Joiner) ensureHolder(ctx context.Context, r registration.JoinRequest, requester string) error {
	objects := registration.NewTokenObjects(r.Cluster, r.ID, requester)
	if err := apply.Object(ctx, j.direct, joinFieldManager, &objects.Account); err != nil {
		return err
	}
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: objects.Account.Name, UID: objects.Account.UID}}
	objects.Role.OwnerReferences, objects.Binding.OwnerReferences = owner, owner
	if err := apply.Object(ctx, j.direct, joinFieldManager, &objects.Role); err != nil {
		return err
	}
	return apply.Object(ctx, j.direct, joinFieldManager, &objects.Binding)
}

// cleanUp deletes what is no longer needed: join accounts, accounts of credentials that
// are not in force, and requests.
func (j *Joiner) cleanUp(ctx context.Context, s *joining, plan registration.JoinPlan, now time.Time) error {
	for name, account := range s.accounts {
		if registration.AccountEnded(account, s.member, s.used, now) {
			if err := apply.Remove(ctx, j.client, account); err != nil {
				return err
			}
			delete(s.accounts, name)
		}
	}
	for _, account := range s.holders {
		if c := plan.Credential; c != nil && c.Kind == v1alpha1.CredentialServiceAccountToken && account.Name == registration.MemberAccount(s.cluster, c.ID) {
			continue
		}
		if err := apply.Remove(ctx, j.client, account); err != nil {
			return err
		}
	}
	for _, name := range registration.SuperfluousRequests(s.requests, s.member, now) {
		if err := apply.Remove(ctx, j.client, s.csrs[name]); err != nil {
			return err
		}
	}
	return nil
}

// next is when to look again without an event: at once while requests are left to be
// judged, else when a token ends or a decided request is to be deleted. 0: never.
func (s *joining) next(judged int, now time.Time) time.Duration {
	undecided := 0
	next := time.Duration(0)
	for _, r := range s.requests {
		if !r.Decided {
			undecided++
		}
	}
	if undecided > judged {
		return time.Millisecond
	}
	if len(s.requests) > 0 {
		next = time.Minute
	}
	for _, account := range s.accounts {
		if left := registration.TokenEnds(account).Sub(now); next == 0 || left < next {
			next = max(left, time.Second)
		}
	}
	return next
}
