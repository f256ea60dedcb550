package renewal_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/registration/renewal"
)

var edge = registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us-a", PoolUID: "uid-1", Credential: "abcdefghi1"}

var key = types.NamespacedName{Namespace: "crossway-system", Name: "crossway-edge-us"}

// hub is a server that signs as the hub does, and the Secret of an edge.
type hub struct {
	testkit.T
	client.Client
	mu      sync.Mutex
	ca      registration.CA
	refuses error
	asked   int
	now     time.Time
	renewer *renewal.Renewer
}

func newHub(t *testing.T, life time.Duration) *hub {
	t.Helper()
	h := &hub{T: testkit.T{TB: t}, now: time.Now()}
	pair, err := registration.NewEdgeCA(h.now, rand.Reader)
	h.Must(err)
	h.ca = registration.CA{Pair: pair}
	h.Client = fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).Build()
	h.join(life)
	h.renewer = &renewal.Renewer{Client: h.Client, Secret: key, Hub: h.serve(), ServerName: "hub", Log: logr.Discard(), Now: func() time.Time { return h.now }}
	return h
}

// join writes the Secret of an edge that has just joined.
func (h *hub) join(life time.Duration) {
	h.Helper()
	pair, err := registration.NewEdgeCertificate(h.ca.Issuer(h.now, rand.Reader), edge, life)
	h.Must(err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key, "ca.crt": h.ca.Bundle()}}
	h.Must(client.IgnoreNotFound(h.Delete(h.Context(), secret.DeepCopy())))
	h.Must(h.Create(h.Context(), secret))
}

func (h *hub) serve() string {
	h.Helper()
	service := grpc.ServiceDesc{ServiceName: registration.RenewalService, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: registration.RenewalMethod,
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var request wrapperspb.BytesValue
			if err := decode(&request); err != nil {
				return nil, err
			}
			return h.answer(ctx, request.Value)
		}}}}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		pair, err := registration.NewServerCertificate(h.ca.Issuer(h.now, rand.Reader), []string{"hub"})
		if err != nil {
			return nil, err
		}
		certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(h.ca.Bundle())
		return &tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
			Time: func() time.Time { return h.now }}, err
	}})))
	g.RegisterService(&service, h)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	h.Must(err)
	go g.Serve(socket)
	h.Cleanup(g.Stop)
	return socket.Addr().String()
}

func (h *hub) answer(ctx context.Context, request []byte) (*wrapperspb.BytesValue, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.refuses != nil {
		return nil, h.refuses
	}
	if len(request) == 0 {
		return wrapperspb.Bytes(h.ca.Bundle()), nil
	}
	p, _ := peer.FromContext(ctx)
	id, err := registration.EdgeIdentityOf(p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	signed, err := registration.SignEdgeRequest(h.ca.Issuer(h.now, rand.Reader), id, request, registration.DefaultEdgeLife)
	return wrapperspb.Bytes(append(signed, h.ca.Bundle()...)), err
}

func (h *hub) secret() *corev1.Secret {
	h.Helper()
	var secret corev1.Secret
	h.Must(h.Get(h.Context(), key, &secret))
	return &secret
}

func (h *hub) leaf() *x509.Certificate {
	h.Helper()
	data := h.secret().Data
	pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
	h.Must(err)
	return pair.Leaf
}

// A certificate is renewed when a third of its life is left, with a new key, for the same identity and credential.
func TestRenewsAtAThirdOfTheLife(t *testing.T) {
	h := newHub(t, 30*time.Hour)
	before := h.secret()
	h.Must(h.renewer.Renew(t.Context()))
	h.now = h.now.Add(19 * time.Hour)
	h.Must(h.renewer.Renew(t.Context()))
	if !bytes.Equal(h.secret().Data["tls.crt"], before.Data["tls.crt"]) {
		t.Fatal("renewed too soon")
	}
	h.now = h.now.Add(2 * time.Hour)
	h.Must(h.renewer.Renew(t.Context()))
	after := h.secret()
	if bytes.Equal(after.Data["tls.key"], before.Data["tls.key"]) {
		t.Error("the key is the old one")
	}
	if id, err := registration.EdgeIdentityOf(h.leaf()); err != nil || id != edge || h.leaf().NotAfter.Before(h.now.Add(24*time.Hour)) {
		t.Errorf("renewed for %+v until %s, %v", id, h.leaf().NotAfter, err)
	}
}

// During a rotation the Secret gets the next CA beside the present one, and a certificate of the new CA once that signs: also
// for edges that saw nothing of the rotation before.
func TestFollowsARotation(t *testing.T) {
	for _, sees := range []bool{true, false} {
		h := newHub(t, 30*time.Hour)
		step := func(request string) {
			t.Helper()
			rotated, err := h.ca.Rotate(registration.Rotation{Request: request, Now: h.now, Random: rand.Reader})
			h.Must(err)
			h.ca = rotated.CA
		}
		first := h.ca.Name()
		step(registration.RotateStart)
		if sees {
			h.Must(h.renewer.Renew(t.Context()))
			if !bytes.Equal(h.secret().Data["ca.crt"], h.ca.Bundle()) || h.leaf().Issuer.CommonName != first {
				t.Error("after step 1 the Secret has not just one more CA")
			}
		}
		h.now = h.now.Add(registration.NextCAWait)
		step("")
		h.Must(h.renewer.Renew(t.Context()))
		if h.leaf().Issuer.CommonName != h.ca.Name() || h.ca.Name() == first {
			t.Errorf("after step 2 the certificate is of %s", h.leaf().Issuer.CommonName)
		}
		step(registration.RotateFinish)
		h.Must(h.renewer.Renew(t.Context()))
		if !bytes.Equal(h.secret().Data["ca.crt"], h.ca.Bundle()) {
			t.Error("after step 3 the old CA is still trusted")
		}
	}
}

// What cannot be renewed is left as it is, and the error says what to do.
func TestSaysWhatToDo(t *testing.T) {
	h := newHub(t, 30*time.Hour)
	fails := func(what string, words ...string) {
		t.Helper()
		err := h.renewer.Renew(t.Context())
		for _, w := range words {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", what, err, w)
			}
		}
	}
	h.refuses = status.Error(codes.PermissionDenied, "credential abcdefghi1 is revoked")
	fails("revoked", "the hub refuses edge spiffe://crossway/edge/us/us/us-a", "is revoked")
	h.refuses = errors.New("no CA")
	fails("the hub cannot sign", "ask the hub at", "no CA")
	h.refuses = nil

	other, err := registration.NewEdgeCA(h.now, rand.Reader)
	h.Must(err)
	kept := h.ca
	h.ca = registration.CA{Pair: other}
	fails("another CA", "join the edges again", "unknown authority")
	h.ca = kept

	h.now = h.now.Add(31 * time.Hour)
	fails("ended", "has ended", "crossway token create --edge")
	secret := h.secret()
	secret.Data["tls.crt"] = nil
	h.Must(h.Update(t.Context(), secret))
	fails("empty", "has no certificate of an edge", "join the edges again")
	h.Must(h.Delete(t.Context(), secret))
	fails("gone", "does not exist; join the edges")
}

// Of two that renew at the same time one writes, and the other fails at nothing.
func TestTwoRenewers(t *testing.T) {
	h := newHub(t, 30*time.Hour)
	h.now = h.now.Add(25 * time.Hour)
	other := *h.renewer
	raced := false
	h.renewer.Client = interceptor.NewClient(h.Client.(client.WithWatch), interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			if !raced {
				raced = true
				h.Must(other.Renew(ctx))
			}
			return c.Update(ctx, o, options...)
		}})
	h.Must(h.renewer.Renew(t.Context()))
	data := h.secret().Data
	if _, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"]); err != nil || !raced {
		t.Errorf("the Secret has a certificate and a key that do not belong together: %v", err)
	}
}
