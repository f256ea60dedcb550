package server_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
)

func renews(connection *grpc.ClientConn, request string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var answer wrapperspb.BytesValue
	err := connection.Invoke(ctx, "/"+registration.RenewalService+"/"+registration.RenewalMethod, wrapperspb.Bytes([]byte(request)), &answer)
	return string(answer.Value), err
}

// Who asks for a certificate is who the present certificate says, with its credential. Who is revoked gets none, and a
// hub that cannot sign says so.
func TestRenewal(t *testing.T) {
	var mu sync.Mutex
	var asked []registration.EdgeIdentity
	var fault error
	h := newHub(t, server.Config{Renew: func(id registration.EdgeIdentity, request []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, id)
		return []byte("signed " + string(request)), fault
	}})
	connection := h.dial(h.certificate(usEdge))
	if answer, err := renews(connection, "mine"); err != nil || answer != "signed mine" || len(asked) != 1 || asked[0] != usEdge {
		t.Errorf("got %q, %v, for %+v", answer, err, asked)
	}
	refused := func(what string, err error, code codes.Code, word string) {
		t.Helper()
		if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), word) {
			t.Errorf("%s: %v, want %s with %q", what, err, code, word)
		}
	}
	_, err := renews(connection, strings.Repeat("x", 9<<10))
	refused("a large request", err, codes.ResourceExhausted, "at most 8192 bytes")
	mu.Lock()
	fault = errors.New("there is no CA")
	mu.Unlock()
	_, err = renews(connection, "")
	refused("without a CA", err, codes.Unavailable, "there is no CA")
	h.revoke(usEdge.Credential)
	_, err = renews(h.dial(h.certificate(usEdge)), "")
	refused("a revoked credential", err, codes.PermissionDenied, "is revoked")
	if len(asked) != 2 {
		t.Errorf("asked to sign for %+v", asked)
	}
}

// A credential has a number of renewals, and a pool; others do not wait for them.
func TestRenewalsAreLimited(t *testing.T) {
	h := newHub(t, server.Config{Renew: func(registration.EdgeIdentity, []byte) ([]byte, error) { return []byte("signed"), nil }})
	h.regions[otherPool] = "eu"
	for i := 0; ; i++ {
		_, err := renews(h.dial(h.certificate(usEdge)), "")
		if status.Code(err) == codes.ResourceExhausted {
			break
		}
		check(t, err)
		if i > 1000 {
			t.Fatal("1000 renewals at once")
		}
	}
	other := usEdge
	other.Credential = "abcdefghi2"
	if _, err := renews(h.dial(h.certificate(other)), ""); err != nil {
		t.Errorf("an edge of the pool with another credential: %v", err)
	}
	for i := 0; ; i++ {
		other.Credential = fmt.Sprintf("flood%05d", i)
		_, err := renews(h.dial(h.certificate(other)), "")
		if status.Code(err) == codes.ResourceExhausted {
			break
		}
		check(t, err)
		if i > 1000 {
			t.Fatal("1000 renewals of a pool at once")
		}
	}
	if _, err := renews(h.dial(h.certificate(euEdge)), ""); err != nil {
		t.Errorf("an edge of another pool: %v", err)
	}
}
