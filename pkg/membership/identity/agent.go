package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// renewInterval is between two certificates, retryInterval after a failure.
	renewInterval = 10 * time.Minute
	retryInterval = 10 * time.Second
	// askTimeout bounds one request. That of who may gossip waits at the hub for 30 s.
	askTimeout = time.Minute
	// maxAnswer bounds an answer: some thousand members have 100 bytes each.
	maxAnswer = 1 << 20
)

// Config is what an Agent is made from. Clock is optional.
type Config struct {
	// API sends requests to the member API, whatever their host.
	API   http.RoundTripper
	Clock clock.Clock
	Log   logr.Logger
}

// Agent is the identity of a member's agent in gossip.
type Agent struct {
	config Config

	mu          sync.Mutex // guards the rest
	certificate *tls.Certificate
	roots       *x509.CertPool
	members     []registration.GossipMember // nil: not known yet
}

// New makes an Agent.
func New(config Config) *Agent {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	return &Agent{config: config}
}

// errNone is while the hub has given no certificate yet.
var errNone = errors.New("the hub has not given a certificate for gossip yet")

// Certificate is that of the next handshake.
func (a *Agent) Certificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.certificate == nil {
		return nil, errNone
	}
	return a.certificate, nil
}

// Roots are the CAs of gossip. Without a certificate there are none.
func (a *Agent) Roots() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.roots == nil {
		return x509.NewCertPool()
	}
	return a.roots
}

// Check returns why a node is not let in. The chain of its certificate was verified.
func (a *Agent) Check(certificate *x509.Certificate) error {
	id, err := registration.GossipIdentityOf(certificate)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !registration.MayGossip(id, a.members) {
		return fmt.Errorf("the hub lets %s not in with credential %s", id, id.Credential)
	}
	return nil
}

// Start follows the hub until ctx ends.
func (a *Agent) Start(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { a.repeat(ctx, renewInterval, "a certificate for gossip", a.renew) })
	both.Go(func() { a.repeat(ctx, 0, "who may gossip", a.follow()) })
	both.Wait()
	return nil
}

// repeat does something again and again until ctx ends. What fails is logged once as long
// as it fails.
func (a *Agent) repeat(ctx context.Context, interval time.Duration, what string, act func(context.Context) error) {
	failed := false
	for ctx.Err() == nil {
		next := interval
		err := act(ctx)
		if err != nil && ctx.Err() == nil {
			next = retryInterval
			if !failed {
				a.config.Log.Info("the hub does not give "+what, "answer", err.Error())
			}
		}
		failed = err != nil
		select {
		case <-ctx.Done():
		case <-a.config.Clock.After(next):
		}
	}
}

// renew asks for a certificate of a new key.
func (a *Agent) renew(ctx context.Context) error {
	key, request, err := registration.NewGossipRequest(rand.Reader)
	if err != nil {
		return err
	}
	_, _, answer, err := a.ask(ctx, http.MethodPost, v1alpha1.GossipCertificatePath, "", request)
	if err != nil {
		return err
	}
	chain, bundle, err := registration.SplitIssued(answer)
	if err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("read the hub's certificate for gossip: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.certificate, a.roots = &certificate, roots
	return nil
}

// follow asks who may gossip, and then for what changed.
func (a *Agent) follow() func(context.Context) error {
	etag := ""
	return func(ctx context.Context) error {
		code, next, answer, err := a.ask(ctx, http.MethodGet, v1alpha1.GossipMembersPath, etag, nil)
		if err != nil || code == http.StatusNotModified {
			return err
		}
		var members []registration.GossipMember
		if err := json.Unmarshal(answer, &members); err != nil {
			return fmt.Errorf("read who may gossip: %w", err)
		}
		etag = next
		a.mu.Lock()
		defer a.mu.Unlock()
		a.members = members
		return nil
	}
}

// ask sends one request to the member API.
func (a *Agent) ask(ctx context.Context, method, path, etag string, body []byte) (code int, tag string, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://member-api"+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, fmt.Errorf("make a request: %w", err)
	}
	if etag != "" {
		request.Header.Set("If-None-Match", etag)
	}
	response, err := a.config.API.RoundTrip(request)
	if err != nil {
		return 0, "", nil, fmt.Errorf("ask the member API: %w", err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, "", nil, fmt.Errorf("read the answer of the member API: %w", err)
	}
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotModified {
		return 0, "", nil, fmt.Errorf("the member API answers %s: %.256s", response.Status, answer)
	}
	return response.StatusCode, response.Header.Get("ETag"), answer, nil
}
