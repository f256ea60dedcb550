package server

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// ClientCAConfigMap in ClientCANamespace is where an API server publishes the CA of
// its clients' certificates, for servers that delegate to it.
const (
	ClientCANamespace = "kube-system"
	ClientCAConfigMap = "extension-apiserver-authentication"
	clientCAKey       = "client-ca-file"
)

const (
	// tokenTTL is how long a token is not reviewed again.
	tokenTTL = 10 * time.Second
	// reviewTimeout is how long a review of a token may take, reviewTries how often it is tried.
	reviewTimeout, reviewTries = 5 * time.Second, 2
	reviewRetryInterval        = 500 * time.Millisecond
)

// Authenticator says who makes a request, as the API server of the hub's cluster
// would. It knows the CA of clients from the hub's cache, and so from its snapshot:
// while the API server does not answer, certificates are valid and new tokens not.
// It is a manager's Runnable on every replica.
type Authenticator struct {
	authenticator.Request
	informers cache.Informers
	ca        *clientCA
}

// NewAuthenticator makes an Authenticator.
func NewAuthenticator(informers cache.Informers, reviews authenticationclient.AuthenticationV1Interface) (*Authenticator, error) {
	a := &Authenticator{informers: informers, ca: &clientCA{}}
	var err error
	a.Request, _, err = authenticatorfactory.DelegatingAuthenticatorConfig{
		ClientCertificateCAContentProvider: a.ca, TokenAccessReviewClient: reviews, TokenAccessReviewTimeout: reviewTimeout, CacheTTL: tokenTTL,
		WebhookRetryBackoff: &wait.Backoff{Duration: reviewRetryInterval, Factor: 1, Steps: reviewTries},
	}.New()
	if err != nil {
		return nil, fmt.Errorf("authenticate members: %w", err)
	}
	return a, nil
}

// NeedLeaderElection says that every replica serves members.
func (a *Authenticator) NeedLeaderElection() bool { return false }

// Start keeps the CA current until ctx ends.
func (a *Authenticator) Start(ctx context.Context) error {
	informer, err := a.informers.GetInformer(ctx, &corev1.ConfigMap{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch ConfigMaps: %w", err)
	}
	load := func(o any) {
		if c := o.(*corev1.ConfigMap); c.Namespace == ClientCANamespace && c.Name == ClientCAConfigMap {
			a.ca.load([]byte(c.Data[clientCAKey]))
		}
	}
	registered, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: load, UpdateFunc: func(_, o any) { load(o) }})
	if err != nil {
		return fmt.Errorf("watch ConfigMaps: %w", err)
	}
	<-ctx.Done()
	_ = informer.RemoveEventHandler(registered)
	return nil
}

// clientCA is a dynamiccertificates.CAContentProvider. Without a CA no certificate
// is valid.
type clientCA struct {
	current atomic.Pointer[dynamiccertificates.CAContentProvider]
}

// load replaces the CA. An unreadable one replaces none.
func (c *clientCA) load(bundle []byte) {
	if content, err := dynamiccertificates.NewStaticCAContent(ClientCAConfigMap, bundle); err == nil {
		c.current.Store(&content)
	}
}

// Name implements CAContentProvider.
func (*clientCA) Name() string { return ClientCAConfigMap }

// AddListener implements CAContentProvider.
func (*clientCA) AddListener(dynamiccertificates.Listener) {}

// CurrentCABundleContent implements CAContentProvider.
func (c *clientCA) CurrentCABundleContent() []byte {
	if content := c.current.Load(); content != nil {
		return (*content).CurrentCABundleContent()
	}
	return nil
}

// VerifyOptions implements CAContentProvider.
func (c *clientCA) VerifyOptions() (x509.VerifyOptions, bool) {
	if content := c.current.Load(); content != nil {
		return (*content).VerifyOptions()
	}
	return x509.VerifyOptions{}, false
}

// expiryOf is when the credential of a request ends: that of its client certificate,
// or of a token that says it (RFC 7519, "exp"), the first of both. Whether they are
// valid is for others to say. Zero: not known.
func expiryOf(r *http.Request) time.Time {
	var ends time.Time
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		ends = r.TLS.PeerCertificates[0].NotAfter
	}
	if end := tokenExpiry(r); ends.IsZero() || !end.IsZero() && end.Before(ends) {
		ends = end
	}
	return ends
}

// tokenExpiry is when the token of a request ends by its own word.
func tokenExpiry(r *http.Request) time.Time {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	parts := strings.Split(token, ".")
	if !strings.EqualFold(scheme, "Bearer") || len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Expiry <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expiry), 0)
}
