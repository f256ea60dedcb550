package hub

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// EdgeJoiner decides about the CertificateSigningRequests of edges that join (signer
// crossway.dev/edge), signs them with the edge CA, and deletes their join accounts.
//
// A join token makes requests of one name only, and its account notes which of them is
// signed: so one edge gets a certificate by it, also when the request is gone.
type EdgeJoiner struct {
	client    client.Client
	namespace string // of the edge CA
	now       func() time.Time
}

// NewEdgeJoiner makes an EdgeJoiner. namespace is that of the hub's Secrets.
func NewEdgeJoiner(c cluster.Cluster, namespace string) (*EdgeJoiner, error) {
	waiting, err := apply.ClientOf(c)
	if err != nil {
		return nil, err
	}
	return &EdgeJoiner{client: waiting, namespace: namespace, now: time.Now}, nil
}

// afterJoining is how long the account of a used token stays: its edge reads the answer.
const afterJoining = 2 * time.Minute

// Reconcile decides about one request, or deletes one join account that has ended. The
// key of an account has its namespace, that of a request has none.
func (j *EdgeJoiner) Reconcile(ctx context.Context, key reconcile.Request) (reconcile.Result, error) {
	if key.Namespace != "" {
		return j.reconcileAccount(ctx, key.NamespacedName)
	}
	csr, err := apply.Found(ctx, j.client, key.NamespacedName, &certificatesv1.CertificateSigningRequest{})
	if err != nil || csr == nil || csr.Spec.SignerName != registration.EdgeSigner {
		return reconcile.Result{}, err
	}
	if isDenied(csr) || len(csr.Status.Certificate) > 0 {
		return reconcile.Result{}, nil
	}
	pool, id, ok := registration.ParseEdgeJoinUser(csr.Spec.Username)
	if !ok { // somebody else's, who finds out that nobody signs it
		return reconcile.Result{}, nil
	}
	account, err := apply.Found(ctx, j.client, joinAccountKey(pool, id), &corev1.ServiceAccount{})
	if err != nil {
		return reconcile.Result{}, err
	}
	var pools v1alpha1.EdgePoolList
	if err := j.client.List(ctx, &pools); err != nil {
		return reconcile.Result{}, fmt.Errorf("list EdgePools: %w", err)
	}
	edge, denied := registration.EdgeOfRequest(csr, account, pools.Items, j.now())
	if denied != nil && isApproved(csr) { // and not signed before the token ended, or the pool was deleted
		return reconcile.Result{}, j.fail(ctx, csr.DeepCopy(), *denied)
	}
	if denied != nil {
		_, err := decide(ctx, j.client, csr, *denied, j.now())
		return reconcile.Result{}, err
	}
	if err := j.claim(ctx, account, csr); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, j.sign(ctx, csr.DeepCopy(), edge)
}

func joinAccountKey(pool, id string) types.NamespacedName {
	return types.NamespacedName{Namespace: v1alpha1.MembersNamespace, Name: registration.EdgeJoinAccountName(pool, id)}
}

// claim notes on a join account which request gets a certificate by it, if the account is
// still as it was read.
func (j *EdgeJoiner) claim(ctx context.Context, account *corev1.ServiceAccount, csr *certificatesv1.CertificateSigningRequest) error {
	if registration.EdgeRequestOf(account) == csr.UID {
		return nil
	}
	claimed := account.DeepCopy()
	metav1.SetMetaDataAnnotation(&claimed.ObjectMeta, v1alpha1.AnnotationEdgeRequest, string(csr.UID))
	if err := j.client.Patch(ctx, claimed, client.MergeFromWithOptions(account, client.MergeFromWithOptimisticLock{}), client.FieldOwner(joinFieldManager)); err != nil {
		return fmt.Errorf("note who uses ServiceAccount %s: %w", account.Name, err)
	}
	return nil
}

// sign approves a request and writes its certificate. A hub that ends in between signs
// when it has started again.
func (j *EdgeJoiner) sign(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, edge registration.EdgeIdentity) error {
	answer, err := AnswerOf(ctx, j.client, j.namespace, SigningRequest{Edge: edge, Request: csr.Spec.Request, Life: registration.EdgeLife(csr), Now: j.now()})
	if err != nil {
		return err // the CA is gone, or not there yet: the request waits
	}
	if !isApproved(csr) {
		if csr, err = decide(ctx, j.client, csr, condition.EdgeJoined(edge.String(), edge.Credential), j.now()); err != nil {
			return err
		}
	}
	csr.Status.Certificate = answer
	if err := j.client.Status().Update(ctx, csr); err != nil {
		return fmt.Errorf("write the certificate of %s: %w", csr.Name, err)
	}
	return nil
}

// fail ends a request that was approved: what is approved cannot be denied any more
// (certificates.k8s.io/v1, conditions of a CertificateSigningRequest).
func (j *EdgeJoiner) fail(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, why condition.Condition) error {
	now := metav1.NewTime(j.now())
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: why.Reason, Message: why.Message, LastUpdateTime: now, LastTransitionTime: now})
	if err := j.client.Status().Update(ctx, csr); err != nil {
		return fmt.Errorf("write that %s is not signed: %w", csr.Name, err)
	}
	return nil
}

// reconcileAccount deletes a join account that has ended, or was used a while ago.
func (j *EdgeJoiner) reconcileAccount(ctx context.Context, key types.NamespacedName) (reconcile.Result, error) {
	account, err := apply.Found(ctx, j.client, key, &corev1.ServiceAccount{})
	if err != nil || account == nil || account.DeletionTimestamp != nil {
		return reconcile.Result{}, err
	}
	pool, id, ok := registration.ParseEdgeJoinUser(account.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	end := registration.TokenEnds(account)
	csr, err := apply.Found(ctx, j.client, types.NamespacedName{Name: registration.EdgeRequestName(pool, id)}, &certificatesv1.CertificateSigningRequest{})
	if err != nil {
		return reconcile.Result{}, err
	}
	switch used := registration.EdgeRequestOf(account); {
	case used != "" && (csr == nil || csr.UID != used): // whose request is gone
		end = j.now()
	case csr != nil && len(csr.Status.Certificate) > 0:
		i := slices.IndexFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == certificatesv1.CertificateApproved
		})
		if i >= 0 {
			end = csr.Status.Conditions[i].LastUpdateTime.Add(afterJoining)
		}
	}
	if left := end.Sub(j.now()); left > 0 {
		return reconcile.Result{RequeueAfter: left}, nil
	}
	return reconcile.Result{}, apply.Remove(ctx, j.client, account)
}

func isDenied(csr *certificatesv1.CertificateSigningRequest) bool {
	return hasCondition(csr, certificatesv1.CertificateDenied) || hasCondition(csr, certificatesv1.CertificateFailed)
}

func isApproved(csr *certificatesv1.CertificateSigningRequest) bool {
	return hasCondition(csr, certificatesv1.CertificateApproved)
}

func hasCondition(csr *certificatesv1.CertificateSigningRequest, what certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == what })
}

// SigningRequest is a certificate to be signed for an edge.
type SigningRequest struct {
	Edge    registration.EdgeIdentity
	Request []byte // PKCS #10; empty: only the CAs are asked for
	Life    time.Duration
	Now     time.Time
}

// AnswerOf signs with the edge CA in a namespace. The answer is PEM: the certificate, what
// is sent with it, and the CAs that edges trust, that which signs now first.
func AnswerOf(ctx context.Context, c client.Reader, namespace string, r SigningRequest) ([]byte, error) {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: namespace, Name: registration.EdgeCASecret}
	if err := c.Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("read the edge CA: %w", err)
	}
	ca := registration.CAOf(secret.Data)
	if err := ca.Check(); err != nil {
		return nil, fmt.Errorf("edge CA in Secret %s: %w", key, err)
	}
	if len(r.Request) == 0 {
		return ca.Bundle(), nil
	}
	signed, err := registration.SignEdgeRequest(ca.Issuer(r.Now, rand.Reader), r.Edge, r.Request, r.Life)
	if err != nil {
		return nil, err
	}
	return slices.Concat(signed, ca.Bundle()), nil
}

// SetupWithManager adds the controller to the hub's manager. It writes while the
// replica leads.
func (j *EdgeJoiner) SetupWithManager(mgr ctrl.Manager, leadership *program.Leadership) error {
	ofAccount := func(_ context.Context, o client.Object) []reconcile.Request {
		if _, _, ok := registration.ParseEdgeJoinUser(o.GetName()); !ok || o.GetNamespace() != v1alpha1.MembersNamespace {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}}
	}
	ofRequest := func(_ context.Context, o client.Object) []reconcile.Request {
		pool, id, ok := registration.ParseEdgeJoinUser(o.(*certificatesv1.CertificateSigningRequest).Spec.Username)
		if !ok {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(o)}, {NamespacedName: joinAccountKey(pool, id)}}
	}
	err := ctrl.NewControllerManagedBy(mgr).Named("edge-joining").
		Watches(&certificatesv1.CertificateSigningRequest{}, handler.EnqueueRequestsFromMapFunc(ofRequest)).
		Watches(&corev1.ServiceAccount{}, handler.EnqueueRequestsFromMapFunc(ofAccount)).
		WithOptions(program.ControllerOptions(1)).
		Complete(leadership.Reconciler(j))
	if err != nil {
		return fmt.Errorf("controller of edges that join: %w", err)
	}
	return nil
}
