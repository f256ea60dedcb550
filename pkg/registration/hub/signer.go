package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// Signer makes the edge CA, and the certificates of xDS and of the hub's replicas if one is
// missing or damaged, or before it expires, and rotates the CA when it is asked to. It makes
// and rotates the CA of gossip unasked. It never replaces an edge CA that was there before.
// It is a Runnable of the leader, which may be started again.
type Signer struct {
	Client client.Client
	// Live reads past the cache, which may lack what was just made.
	Live client.Reader
	// Namespace is that of the Secrets.
	Namespace string
	// Names are the DNS names and addresses in the serving certificate.
	Names []string
	// OldUsers names the connected edges, of all replicas, whose certificates a CA of this name
	// signed or may have signed. Nil: none.
	OldUsers func(ca string) []string
	// Events takes what people should know. Nil: nobody does.
	Events events.EventRecorder
	Log    logr.Logger

	fault      atomic.Pointer[error] // of the CA
	said       string                // the last note, so that it is said once
	complained string                // the error that lasts; "": none
}

// Intervals at which the Signer looks.
const (
	signerInterval       = time.Hour
	signerRetryInterval  = 5 * time.Second
	signerUrgentInterval = time.Second
)

// Fault is why there is no edge CA to sign with; nil if there is one.
func (s *Signer) Fault() error {
	if fault := s.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// Start checks the certificates each hour, when a Secret asks for it, and soon again after a
// failure.
func (s *Signer) Start(ctx context.Context) error {
	for {
		next := signerInterval
		err := s.ensure(ctx)
		if err != nil {
			next = signerRetryInterval
		}
		if ctx.Err() == nil {
			s.complain(err)
		}
		if !s.wait(ctx, next) {
			return nil
		}
	}
}

// wait returns after a time, or when a Secret in the cache asks for something. It returns
// false when ctx ends.
func (s *Signer) wait(ctx context.Context, d time.Duration) bool {
	for end := time.Now().Add(d); ; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(signerUrgentInterval, time.Until(end))):
		}
		if !time.Now().Before(end) || d == signerInterval && s.asked(ctx) {
			return true
		}
	}
}

// asked says that ensure has something to do, by the Secrets in the cache. One that is
// missing there counts as an empty one: both are made anew, or told of.
func (s *Signer) asked(ctx context.Context) bool {
	edges := s.secret(registration.EdgeCASecret)
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(edges), edges); client.IgnoreNotFound(err) != nil {
		return false
	}
	ca := registration.CAOf(edges.Data)
	if ca.Check() != nil || edges.Annotations[registration.AnnotationRotate] != "" || len(ca.Next.Certificate) > 0 {
		return true
	}
	for _, what := range s.servings() {
		secret := s.secret(what.secret)
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(secret), secret); client.IgnoreNotFound(err) != nil {
			return false
		}
		if what.certificateFault(ca, secret) != "" || what.otherFault(ca, secret) != "" {
			return true
		}
	}
	return s.memberCAWaits(ctx)
}

// memberCAWaits says that the CA of gossip has a step to take.
func (s *Signer) memberCAWaits(ctx context.Context) bool {
	secret := s.secret(registration.MemberCASecret)
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(secret), secret); client.IgnoreNotFound(err) != nil {
		return false
	}
	step, err := registration.NextMemberCA(registration.CAOf(secret.Data), time.Now(), rand.Reader)
	return err != nil || step.Changed
}

// complain logs an error, once as long as it stays the same; nil: nothing is wrong any more.
func (s *Signer) complain(err error) {
	if err == nil {
		s.complained = ""
		return
	}
	if s.complained == err.Error() {
		return
	}
	s.complained = err.Error()
	s.Log.Error(err, "could not make certificates")
	if fault := s.Fault(); fault != nil {
		s.event(corev1.EventTypeWarning, "EdgeCAMissing", "Refuse", fault.Error())
	}
}

// say logs what happened, and emits it as an Event on the CA's Secret.
func (s *Signer) say(note string) {
	if s.said == note {
		return
	}
	s.said = note
	s.Log.Info("edge CA", "note", note)
	s.event(corev1.EventTypeNormal, "EdgeCARotation", "Rotate", note)
}

func (s *Signer) event(kind, reason, action, note string) {
	if s.Events == nil {
		return
	}
	secret := s.secret(registration.EdgeCASecret)
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: secret.Namespace, Name: secret.Name}
	s.Events.Eventf(about, nil, kind, reason, action, "%s", note[:min(len(note), maxNote)])
}

// maxNote is the most that the API server takes for the note of an Event.
const maxNote = 1024

// ensure makes both CAs what they should be. Neither waits for the other.
func (s *Signer) ensure(ctx context.Context) error {
	return errors.Join(s.ensureEdges(ctx), s.ensureMemberCA(ctx))
}

// ensureMemberCA makes the CA of gossip where it is missing or damaged, and rotates it.
// Nobody needs it back: who has a certificate of an earlier one asks for another.
func (s *Signer) ensureMemberCA(ctx context.Context) error {
	secret := s.secret(registration.MemberCASecret)
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", registration.MemberCASecret, err)
	}
	missing := err != nil
	step, err := registration.NextMemberCA(registration.CAOf(secret.Data), time.Now(), rand.Reader)
	if err != nil || !step.Changed {
		return err
	}
	secret.Data = step.CA.Data()
	if missing {
		err = s.Client.Create(ctx, secret)
	} else {
		err = s.Client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", registration.MemberCASecret, err)
	}
	s.Log.Info("wrote the CA of gossip", "signs", step.CA.Name(), "next", registration.CertificateName(step.CA.Next.Certificate), "old", registration.CertificateName(step.CA.Old))
	return nil
}

// ensureEdges makes the edge CA and the serving certificate what they should be.
func (s *Signer) ensureEdges(ctx context.Context) error {
	ca, err := s.ensureCA(ctx)
	var fault *error
	if missing := (caFault{}); errors.As(err, &missing) {
		fault = &err
	}
	s.fault.Store(fault)
	if err != nil {
		return err
	}
	for _, what := range s.servings() {
		if err := s.ensureServing(ctx, ca, what); err != nil {
			return err
		}
	}
	return nil
}

// serving is a certificate that the Signer keeps in a Secret, with the CAs to trust.
type serving struct {
	secret string
	// fault is why a certificate is no good; "": it is.
	fault func(registration.Issuer, registration.Pair) string
	sign  func(registration.Issuer) (registration.Pair, error)
	// versionKey: the Secret has a key for versions, too.
	versionKey bool
}

func (s *Signer) servings() []serving {
	return []serving{
		{secret: registration.XDSSecret, versionKey: true,
			fault: func(i registration.Issuer, p registration.Pair) string {
				return registration.ServerCertificateFault(i, p, s.Names)
			},
			sign: func(i registration.Issuer) (registration.Pair, error) {
				return registration.NewServerCertificate(i, s.Names)
			}},
		{secret: registration.ReplicaSecret, fault: registration.HubReplicaCertificateFault, sign: registration.NewHubReplicaCertificate},
	}
}

// certificateFault is why the certificate in a Secret must be signed anew; "": it is good.
func (w serving) certificateFault(ca registration.CA, secret *corev1.Secret) string {
	return w.fault(ca.Issuer(time.Now(), rand.Reader), pairOf(secret))
}

// otherFault is what else in the Secret must be written anew; "": nothing.
func (w serving) otherFault(ca registration.CA, secret *corev1.Secret) string {
	switch {
	case !bytes.Equal(secret.Data[registration.CAKey], ca.Bundle()):
		return "other CAs"
	case w.versionKey && len(secret.Data[registration.VersionKey]) < registration.VersionKeyLength:
		return "no key for versions"
	}
	return ""
}

// ensureServing makes the Secret of a certificate what it should be.
func (s *Signer) ensureServing(ctx context.Context, ca registration.CA, what serving) error {
	secret := s.secret(what.secret)
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Secret %s: %w", what.secret, err)
	}
	missing := err != nil
	pair, fault := pairOf(secret), what.certificateFault(ca, secret)
	if fault != "" {
		if pair, err = what.sign(ca.Issuer(time.Now(), rand.Reader)); err != nil {
			return err
		}
	} else if fault = what.otherFault(ca, secret); fault == "" {
		return nil
	}
	data := map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key, registration.CAKey: ca.Bundle()}
	if what.versionKey {
		data[registration.VersionKey] = secret.Data[registration.VersionKey]
		if len(data[registration.VersionKey]) < registration.VersionKeyLength {
			data[registration.VersionKey] = registration.NewVersionKey()
		}
	}
	secret.Data = data
	if missing {
		err = s.Client.Create(ctx, secret)
	} else {
		s.Log.Info("wrote the Secret of a certificate of the hub", "secret", what.secret, "reason", fault)
		err = s.Client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", what.secret, err)
	}
	return nil
}

// caFault is why the Signer has no CA to sign with.
type caFault struct{ message string }

func (f caFault) Error() string { return f.message }

// ensureCA reads the CA, makes the first one, and takes the next step of a rotation.
func (s *Signer) ensureCA(ctx context.Context) (registration.CA, error) {
	secret := s.secret(registration.EdgeCASecret)
	err := s.Live.Get(ctx, client.ObjectKeyFromObject(secret), secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return registration.CA{}, fmt.Errorf("read Secret %s: %w", registration.EdgeCASecret, err)
	}
	missing, ca := err != nil, registration.CAOf(secret.Data)
	if missing || ca.Missing() {
		return s.newCA(ctx, secret, missing)
	}
	if err := ca.Check(); err != nil {
		return ca, caFault{fmt.Sprintf("Secret %s/%s: %v; restore it from a backup", s.Namespace, registration.EdgeCASecret, err)}
	}
	if err := s.record(ctx, ca); err != nil {
		return ca, err
	}
	return s.rotate(ctx, secret, ca)
}

// newCA makes a CA, unless there was one before.
func (s *Signer) newCA(ctx context.Context, secret *corev1.Secret, missing bool) (registration.CA, error) {
	if secret.Annotations[registration.AnnotationNewCA] != "true" {
		trace, err := s.trace(ctx)
		if err != nil {
			return registration.CA{}, err
		}
		if trace != "" {
			return registration.CA{}, caFault{fmt.Sprintf("Secret %s/%s with the edge CA is gone or empty, and %s shows that there was one: a new CA would shut every edge out. "+
				"Restore the Secret from a backup, or start anew on purpose and join every edge again: docs/install.md, \"When the edge CA is lost\"",
				s.Namespace, registration.EdgeCASecret, trace)}
		}
	}
	pair, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	if err != nil {
		return registration.CA{}, err
	}
	ca := registration.CA{Pair: pair}
	delete(secret.Annotations, registration.AnnotationNewCA)
	secret.Data = ca.Data()
	if missing {
		err = s.Client.Create(ctx, secret)
	} else {
		err = s.Client.Update(ctx, secret)
	}
	if err != nil {
		return registration.CA{}, fmt.Errorf("write Secret %s: %w", registration.EdgeCASecret, err)
	}
	s.Log.Info("made the edge CA", "secret", secret.Namespace+"/"+secret.Name, "ca", ca.Name())
	return ca, s.record(ctx, ca)
}

// rotate takes the next step of a rotation, if there is one to take.
func (s *Signer) rotate(ctx context.Context, secret *corev1.Secret, ca registration.CA) (registration.CA, error) {
	step := registration.Rotation{Request: secret.Annotations[registration.AnnotationRotate], Now: time.Now(), Random: rand.Reader}
	if s.OldUsers != nil && len(ca.Old) > 0 {
		step.OldUsers = s.OldUsers(registration.CertificateName(ca.Old))
	}
	rotated, err := ca.Rotate(step)
	if err != nil {
		return ca, err
	}
	if rotated.Changed || rotated.Answered {
		secret.Data = rotated.CA.Data()
		if rotated.Answered {
			delete(secret.Annotations, registration.AnnotationRotate)
		}
		if err := s.Client.Update(ctx, secret); err != nil {
			return ca, fmt.Errorf("write Secret %s: %w", registration.EdgeCASecret, err)
		}
	}
	if rotated.Note != "" {
		s.say(rotated.Note)
	}
	return rotated.CA, s.record(ctx, rotated.CA)
}

// trace is what shows that there was an edge CA before; "": nothing does.
func (s *Signer) trace(ctx context.Context) (string, error) {
	server, record := s.secret(registration.XDSSecret), s.emptyRecord()
	for _, o := range []client.Object{server, record} {
		if err := s.Live.Get(ctx, client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil {
			return "", fmt.Errorf("look for an earlier edge CA in %T %s: %w", o, o.GetName(), err)
		}
	}
	var pools v1alpha1.EdgePoolList
	if err := s.Live.List(ctx, &pools); err != nil {
		return "", fmt.Errorf("look for an earlier edge CA in EdgePools: %w", err)
	}
	if name := registration.CertificateName(server.Data[registration.CAKey]); name != "" {
		return fmt.Sprintf("Secret %s (CA %s)", registration.XDSSecret, name), nil
	}
	if record.UID != "" {
		return fmt.Sprintf("ControllerRevision %s", record.Name), nil
	}
	for _, p := range pools.Items {
		if len(p.Status.Credentials) > 0 {
			return fmt.Sprintf("the status of EdgePool %q (CA %s)", p.Name, p.Status.Credentials[0].CA), nil
		}
	}
	return "", nil
}

// caRecord is the data of the record of the CA, which outlives both Secrets.
type caRecord struct {
	// Certificates of the CAs, PEM.
	Certificates string `json:"certificates"`
}

// record writes which CAs there are into a ControllerRevision, which has no secret. Its
// data cannot be changed, so it is made again.
func (s *Signer) record(ctx context.Context, ca registration.CA) error {
	data, err := json.Marshal(caRecord{Certificates: string(ca.Bundle())})
	if err != nil {
		return fmt.Errorf("encode the record of the edge CA: %w", err)
	}
	want, have := s.emptyRecord(), s.emptyRecord()
	want.Revision, want.Data = 1, runtime.RawExtension{Raw: data}
	err = s.Live.Get(ctx, client.ObjectKeyFromObject(have), have)
	switch {
	case err == nil && bytes.Equal(have.Data.Raw, data):
		return nil
	case err == nil:
		if err := s.Client.Delete(ctx, have); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete ControllerRevision %s: %w", have.Name, err)
		}
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("read ControllerRevision %s: %w", have.Name, err)
	}
	if err := s.Client.Create(ctx, want); err != nil {
		return fmt.Errorf("create ControllerRevision %s: %w", want.Name, err)
	}
	return nil
}

func (s *Signer) emptyRecord() *appsv1.ControllerRevision {
	return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: registration.EdgeCASecret}}
}

func (s *Signer) secret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name}, Type: corev1.SecretTypeTLS}
}

func pairOf(secret *corev1.Secret) registration.Pair {
	return registration.Pair{Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
}
