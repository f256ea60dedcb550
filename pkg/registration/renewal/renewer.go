package renewal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
)

const (
	// DefaultInterval is how often the hub is asked which CAs there are.
	DefaultInterval = 5 * time.Minute
	retryInterval   = 15 * time.Second // the first; then it doubles
	callTimeout     = 15 * time.Second
	// worthTelling is how much clocks may differ before the log says so.
	worthTelling = time.Minute
)

// Renewer renews the certificate in one Secret: when a third of its life is left, and when
// the hub's CA is another one. It is safe that several do so: of two that renew at the same
// time, one writes.
type Renewer struct {
	// Client reads and updates the Secret.
	Client client.Client
	Secret types.NamespacedName
	// Hub is the address of the hub's xDS port, ServerName the name of its certificate.
	Hub, ServerName string
	// Interval is DefaultInterval if zero.
	Interval time.Duration
	Log      logr.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time

	said string // last, so that it is said once
}

// Start renews until ctx ends.
func (r *Renewer) Start(ctx context.Context) error {
	if r.Interval == 0 {
		r.Interval = DefaultInterval
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	failures := r.failures()
	for {
		next := wait.Jitter(r.Interval, 0.2)
		if err := r.Renew(ctx); err != nil && ctx.Err() == nil {
			if r.said != err.Error() {
				r.said = err.Error()
				r.Log.Error(err, "could not renew the certificate", "secret", r.Secret.String())
			}
			next = min(next, failures.Step())
		} else {
			r.said, failures = "", r.failures()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(next):
		}
	}
}

func (r *Renewer) failures() wait.Backoff {
	return wait.Backoff{Duration: retryInterval, Factor: 2, Jitter: 0.2, Steps: 30, Cap: r.Interval}
}

// Renew looks once, and renews what has to be.
func (r *Renewer) Renew(ctx context.Context) error {
	var secret corev1.Secret
	if err := r.Client.Get(ctx, r.Secret, &secret); apierrors.IsNotFound(err) {
		return fmt.Errorf("Secret %s does not exist; join the edges: crossway join --edge", r.Secret)
	} else if err != nil {
		return fmt.Errorf("read Secret %s: %w", r.Secret, err)
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("Secret %s has no certificate of an edge: %w; join the edges again: crossway join --edge", r.Secret, err)
	}
	bundle, err := r.ask(ctx, pair, secret.Data[registration.CAKey], nil)
	if err != nil {
		return r.explain(err, pair.Leaf)
	}
	if why := r.due(pair.Leaf, bundle); why != "" {
		return r.renew(ctx, &secret, pair, why)
	}
	if bytes.Equal(bundle, secret.Data[registration.CAKey]) {
		return nil
	}
	secret.Data[registration.CAKey] = bundle
	return r.write(ctx, &secret, "the hub trusts other CAs")
}

// due is why a certificate is to be renewed now; "": it is not.
func (r *Renewer) due(leaf *x509.Certificate, bundle []byte) string {
	if left := leaf.NotAfter.Sub(r.Now()); left < leaf.NotAfter.Sub(leaf.NotBefore)/3 {
		return "ends " + leaf.NotAfter.Format(time.RFC3339)
	}
	if signs := registration.CertificateName(bundle); signs != leaf.Issuer.CommonName {
		return fmt.Sprintf("signed by %s, and now %s signs", leaf.Issuer.CommonName, signs)
	}
	return ""
}

func (r *Renewer) renew(ctx context.Context, secret *corev1.Secret, pair tls.Certificate, why string) error {
	key, request, err := registration.NewEdgeRequest(rand.Reader)
	if err != nil {
		return err
	}
	answer, err := r.ask(ctx, pair, secret.Data[registration.CAKey], request)
	if err != nil {
		return r.explain(err, pair.Leaf)
	}
	data, err := registration.EdgeSecretData(key, answer)
	if err != nil {
		return err
	}
	renewed, err := tls.X509KeyPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("the hub's answer: %w", err)
	}
	if ahead := r.Now().Sub(registration.SignedAt(renewed.Leaf)); ahead.Abs() > worthTelling {
		r.Log.Info("the clock of this machine and the hub's differ; certificates seem to end sooner or later than they do", "ahead", ahead.Round(time.Second).String())
	}
	for name, value := range data {
		secret.Data[name] = value
	}
	return r.write(ctx, secret, why+"; valid until "+renewed.Leaf.NotAfter.Format(time.RFC3339))
}

func (r *Renewer) write(ctx context.Context, secret *corev1.Secret, why string) error {
	switch err := r.Client.Update(ctx, secret); {
	case apierrors.IsConflict(err): // somebody else renewed it, or joined anew
		return nil
	case err != nil:
		return fmt.Errorf("write Secret %s: %w", r.Secret, err)
	}
	r.Log.Info("wrote the edges' certificate", "secret", r.Secret.String(), "reason", why)
	return nil
}

// ask calls the hub. An empty request asks for the CAs only.
func (r *Renewer) ask(ctx context.Context, pair tls.Certificate, trusted, request []byte) ([]byte, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		return nil, fmt.Errorf("Secret %s has no CA (%s); join the edges again: crossway join --edge", r.Secret, registration.CAKey)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	connection, err := grpc.NewClient(r.Hub, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: r.ServerName, MinVersion: tls.VersionTLS13, Time: r.Now})))
	if err != nil {
		return nil, fmt.Errorf("connect to the hub at %s: %w", r.Hub, err)
	}
	var answer wrapperspb.BytesValue
	err = connection.Invoke(ctx, "/"+registration.RenewalService+"/"+registration.RenewalMethod, wrapperspb.Bytes(request), &answer)
	if err = errors.Join(err, connection.Close()); err != nil {
		return nil, err
	}
	return answer.Value, nil
}

// explain says what to do about a call that failed.
func (r *Renewer) explain(err error, leaf *x509.Certificate) error {
	const again = "join the edges again: crossway token create --edge on the hub, then crossway join --edge"
	id, _ := registration.EdgeIdentityOf(leaf) // the hub has said what is wrong with it
	switch {
	case !r.Now().Before(leaf.NotAfter):
		return fmt.Errorf("the certificate of edge %s has ended (%s), and the hub lets nobody in with it; %s: %w", id, leaf.NotAfter.Format(time.RFC3339), again, err)
	case status.Code(err) == codes.PermissionDenied:
		return fmt.Errorf("the hub refuses edge %s: %w", id, err)
	case status.Code(err) == codes.Unavailable:
		return fmt.Errorf("ask the hub at %s, as edge %s whose certificate %s signed and which ends %s; "+
			"if the hub's log says that it refused the certificate, %s: %w", r.Hub, id, leaf.Issuer.CommonName, leaf.NotAfter.Format(time.RFC3339), again, err)
	}
	return fmt.Errorf("ask the hub at %s: %w", r.Hub, err)
}
