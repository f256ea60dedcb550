package server

import (
	"context"
	"sync"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/registration"
)

// certificates is the service that renews certificates.
const renewal service = "renewal"

const (
	// maxRenewal bounds a request for a certificate, which has some 400 bytes.
	maxRenewal = 8 << 10
	// renewalRate is how many requests per second the edges of a pool may send in the long
	// run, and renewalBurst how many at once. A request costs the hub two signatures.
	renewalRate, renewalBurst = 1, 32
	// credentialRate and credentialBurst are those of one credential, whose edges ask every
	// 5 min: who has stolen one keeps the others of the pool from nothing.
	credentialRate, credentialBurst = 0.1, 8
)

// renewals is how many requests for certificates the edges of a pool may still send.
type renewals struct {
	pool *rate.Limiter

	mu sync.Mutex // guards the rest
	// credentials are those that have asked. A credential is what a join token gave out, so
	// people make them, and there are few.
	credentials map[string]*rate.Limiter
}

func newRenewals() *renewals {
	return &renewals{pool: rate.NewLimiter(renewalRate, renewalBurst), credentials: map[string]*rate.Limiter{}}
}

// allow takes one request of a credential.
func (r *renewals) allow(credential string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.credentials[credential]
	if own == nil {
		own = rate.NewLimiter(credentialRate, credentialBurst)
		r.credentials[credential] = own
	}
	return own.Allow() && r.pool.Allow()
}

// renewalService renews the certificate of whoever calls it. It has one method. The
// messages are bytes, so there is no proto file.
var renewalService = grpc.ServiceDesc{
	ServiceName: registration.RenewalService,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: registration.RenewalMethod,
		Handler: func(s any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return s.(*Server).renew(ctx, decode)
		},
	}},
}

// renew answers an edge that asks for its next certificate (PKCS #10), or with an empty
// request for the CAs only. Who asks gets the identity and the credential that it has.
func (s *Server) renew(ctx context.Context, decode func(any) error) (*wrapperspb.BytesValue, error) {
	answer, err := s.renewed(ctx, decode)
	if err != nil {
		s.reject(ctx, renewal, err)
		return nil, err
	}
	return wrapperspb.Bytes(answer), nil
}

func (s *Server) renewed(ctx context.Context, decode func(any) error) ([]byte, error) {
	identity, connection, err := identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(identity); err != nil {
		return nil, err
	}
	if !s.pool(identity.Pool).quota.renewals.allow(identity.Credential) {
		return nil, status.Errorf(codes.ResourceExhausted, "the edges of pool %q, or those with credential %s, renew too many certificates; try again in a minute", identity.Pool, identity.Credential)
	}
	var f frame
	if err := decode(&f); err != nil {
		return nil, err
	}
	defer connection.finished(len(f))
	var request wrapperspb.BytesValue
	if len(f) > maxRenewal {
		return nil, status.Errorf(codes.ResourceExhausted, "a request for a certificate has at most %d bytes", maxRenewal)
	}
	if err := f.parse(&request, 8); err != nil {
		return nil, err
	}
	answer, err := s.config.Renew(identity, request.Value)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "the hub cannot sign now: %v", err)
	}
	return answer, nil
}
