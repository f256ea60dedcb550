package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

// Limits of what a member asks about gossip.
const (
	// maxRequest bounds a request for a certificate, which has some 400 bytes, and
	// bodyTimeout how long it may take to come.
	maxRequest  = 8 << 10
	bodyTimeout = 10 * time.Second
	// signRate is how many certificates per second a member may ask for, after signBurst.
	// Each costs the hub two signatures.
	signRate, signBurst = 0.1, 8
	// maxWaits is how many questions about who may gossip wait for a change at a time, and
	// rosterWait how long.
	maxWaits   = 4
	rosterWait = 30 * time.Second
)

// roster is who may gossip, as it is told.
type roster struct {
	text    []byte // []registration.GossipMember
	etag    string
	changed chan struct{} // closed when another takes its place
}

// setRoster takes who may gossip. Only the loop calls it.
func (s *Server) setRoster(members []v1alpha1.MemberCluster) {
	text, err := json.Marshal(registration.GossipMembers(members))
	if err != nil {
		text = []byte("[]") // which does not happen: there are only strings in it
	}
	sum := sha256.Sum256(text)
	now := &roster{text: text, etag: `"` + hex.EncodeToString(sum[:8]) + `"`, changed: make(chan struct{})}
	if before := s.roster.Load(); before == nil || before.etag != now.etag {
		s.roster.Store(now)
		if before != nil {
			close(before.changed)
		}
	}
}

// gossip answers a member's request about gossip.
func (h *handler) gossip(w http.ResponseWriter, r *http.Request, reader *memberapi.Reader, expiry time.Time) error {
	switch {
	case r.URL.Path == v1alpha1.GossipCertificatePath && r.Method == http.MethodPost:
		return h.certificate(w, r, reader, expiry)
	case r.URL.Path == v1alpha1.GossipMembersPath && r.Method == http.MethodGet:
		return h.members(w, r, reader, expiry)
	case r.URL.Path == v1alpha1.GossipCertificatePath || r.URL.Path == v1alpha1.GossipMembersPath:
		return apierrors.NewMethodNotSupported(schema.GroupResource{}, r.Method)
	}
	return failure(http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("the member API has no %q", r.URL.Path))
}

// certificate signs what an agent asks for by a certificate request (PKCS #10, PEM). The
// name is that of who asks, whatever the request says. The answer is PEM: the certificate
// with its chain, and the CAs of gossip.
func (h *handler) certificate(w http.ResponseWriter, r *http.Request, reader *memberapi.Reader, expiry time.Time) error {
	if h.config.Sign == nil {
		return apierrors.NewServiceUnavailable("this hub has no gossip")
	}
	if !h.maySign(reader.Cluster) {
		return apierrors.NewTooManyRequests(fmt.Sprintf("member %q asks for too many certificates", reader.Cluster), int(1/signRate))
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(h.config.Clock.Now().Add(bodyTimeout)) // where that cannot be, the client's own connection waits
	request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a request for a certificate has at most %d bytes", maxRequest))
		}
		return apierrors.NewBadRequest("the request for a certificate did not come whole")
	}
	_ = control.SetReadDeadline(time.Time{})
	_, credential, _ := registration.ParseMemberUser(reader.User)
	answer, err := h.config.Sign(registration.GossipIdentity{Member: reader.Cluster, Credential: credential}, request, expiry)
	if err != nil {
		return apierrors.NewServiceUnavailable(fmt.Sprintf("the hub signs no certificate for gossip: %v", err))
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answer) // a client that is gone needs no answer
	return nil
}

// members says who may gossip. A client that knows it already, by its ETag, is answered
// when it changes, or 304 after a while.
func (h *handler) members(w http.ResponseWriter, r *http.Request, reader *memberapi.Reader, expiry time.Time) error {
	end, ok := h.beginWait(reader.Cluster)
	if !ok {
		return apierrors.NewTooManyRequests(fmt.Sprintf("member %q has %d such requests open", reader.Cluster, maxWaits), 1)
	}
	defer end()
	now := h.roster.Load()
	if known := r.Header.Get("If-None-Match"); known == now.etag {
		h.await(r.Context(), now.changed, expiry)
		h.mu.RLock()
		again := h.state.Reader(reader.Cluster)
		h.mu.RUnlock()
		if again == nil || again.User != reader.User {
			return notAccepted(reader.Cluster)
		}
		if now = h.roster.Load(); known == now.etag {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	w.Header().Set("ETag", now.etag)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(now.text) // a client that is gone needs no answer
	return nil
}

// await waits for a change, but not beyond the end of a credential.
func (h *handler) await(ctx context.Context, changed <-chan struct{}, expiry time.Time) {
	wait := rosterWait
	if left := expiry.Sub(h.config.Clock.Now()); !expiry.IsZero() && left < wait {
		wait = left
	}
	select {
	case <-changed:
	case <-h.config.Clock.After(wait):
	case <-ctx.Done():
	}
}

// maySign counts a certificate that a member asks for.
func (s *Server) maySign(cluster fleet.ClusterName) bool {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	return s.stateOf(cluster).certificates.AllowN(s.config.Clock.Now(), 1)
}

// beginWait counts a question that waits, or says that the member has too many.
func (s *Server) beginWait(cluster fleet.ClusterName) (end func(), ok bool) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	c := s.stateOf(cluster)
	if c.waits >= maxWaits {
		return nil, false
	}
	c.waits++
	return func() {
		s.openMu.Lock()
		defer s.openMu.Unlock()
		c.waits--
	}, true
}
