package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"crossway.dev/crossway/internal/testkit"
)

// A connection has one try to authenticate, however many requests it sends at once: a
// try may cost a review of a token by the API server.
func TestAConnectionTriesOnce(t *testing.T) {
	var tries atomic.Int32
	h := &handler{Server: New(Config{}), authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		tries.Add(1)
		return nil, false, nil
	})}
	ctx := context.WithValue(t.Context(), connectionKey{}, &connection{})
	var requests sync.WaitGroup
	for range 20 {
		requests.Go(func() {
			answer := httptest.NewRecorder()
			h.ServeHTTP(answer, httptest.NewRequestWithContext(ctx, http.MethodGet, importsPath, nil))
			if answer.Code != http.StatusUnauthorized {
				t.Errorf("code %d", answer.Code)
			}
		})
	}
	requests.Wait()
	if n := tries.Load(); n != 1 {
		t.Errorf("%d tries", n)
	}
}

// A request with a certificate and a token ends with the first of both: what a token
// says of itself is nobody's word where the certificate was what authenticated.
func TestExpiryOfTwoCredentials(t *testing.T) {
	soon, later := time.Now().Add(time.Minute).Truncate(time.Second), time.Now().Add(time.Hour).Truncate(time.Second)
	for _, c := range []struct{ certificate, token, want time.Time }{
		{soon, later, soon}, {later, soon, soon}, {soon, time.Time{}, soon}, {time.Time{}, soon, soon}, {},
	} {
		r := httptest.NewRequest(http.MethodGet, importsPath, nil)
		if !c.certificate.IsZero() {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: c.certificate}}}
		}
		if !c.token.IsZero() {
			claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, c.token.Unix()))
			r.Header.Set("Authorization", "Bearer x."+claims+".y")
		}
		for range 2 {
			if got := expiryOf(r); !got.Equal(c.want) {
				t.Errorf("certificate %s, token %s, %q: %s", c.certificate, c.token, r.Header, got)
			}
			header, _ := strings.CutPrefix(r.Header.Get("Authorization"), "B")
			r.Header.Set("Authorization", "b"+header) // a scheme has no case (RFC 7235)
		}
	}
}

// A client that has not authenticated has the hub keep little: a frame that it only
// announces is memory, too.
func TestFramesAreSmall(t *testing.T) {
	f := newFixture(t)
	conn, err := tls.Dial("tcp", f.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	f.Must(err)
	defer conn.Close()
	f.Must(conn.SetDeadline(time.Now().Add(testkit.Timeout)))
	_, err = conn.Write([]byte(http2.ClientPreface))
	f.Must(err)
	framer := http2.NewFramer(conn, conn)
	f.Must(framer.WriteSettings())
	frame, err := framer.ReadFrame()
	f.Must(err)
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("the first frame is a %T", frame)
	}
	for id, most := range map[http2.SettingID]uint32{http2.SettingMaxFrameSize: maxFrame, http2.SettingInitialWindowSize: maxReceived,
		http2.SettingMaxConcurrentStreams: maxStreams, http2.SettingMaxHeaderListSize: 2 * maxHeader} {
		if value, _ := settings.Value(id); value > most {
			t.Errorf("%s is %d, and may be %d", id, value, most)
		}
	}
}
