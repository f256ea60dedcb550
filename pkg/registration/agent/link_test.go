package agent

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"crossway.dev/crossway/internal/lab/controlplane"
	"crossway.dev/crossway/internal/testkit"
)

// A request is sent with the credential of its moment. One that is under way, as a watch,
// goes on with the one before it.
func TestLink(t *testing.T) {
	more := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.TLS.PeerCertificates[0].Subject.CommonName
		_, _ = fmt.Fprintln(w, who)
		w.(http.Flusher).Flush()
		if r.URL.Path == "/watch" {
			<-more
			_, _ = fmt.Fprintln(w, who, "still")
		}
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)

	ca, err := controlplane.NewCA("test")
	testkit.Must(t, err)
	credential := func(name string) *rest.Config {
		pair, err := ca.Client(name)
		testkit.Must(t, err)
		return &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true, CertData: pair.Cert, KeyData: pair.Key}}
	}
	var now *rest.Config
	l := &link{config: func() *rest.Config { return now }, clock: &hubClock{now: time.Now}}
	client := &http.Client{Transport: l}
	if _, err := client.Get(server.URL); err == nil { //nolint:bodyclose // there is none
		t.Error("a request without a credential is sent")
	}
	now = credential("before")
	watch, err := client.Get(server.URL + "/watch")
	testkit.Must(t, err)
	defer watch.Body.Close()
	lines := bufio.NewScanner(watch.Body)
	if !lines.Scan() || lines.Text() != "before" {
		t.Errorf("the watch is of %q", lines.Text())
	}
	now = credential("after")
	response, err := client.Get(server.URL)
	testkit.Must(t, err)
	defer response.Body.Close()
	if answer := bufio.NewScanner(response.Body); !answer.Scan() || answer.Text() != "after" {
		t.Errorf("after the renewal a request is of %q", answer.Text())
	}
	close(more)
	if !lines.Scan() || lines.Text() != "before still" {
		t.Errorf("the watch goes on with %q, %v", lines.Text(), lines.Err())
	}
	if ahead := time.Duration(l.clock.ahead.Load()); !l.clock.called.Load() || ahead.Abs() > maxRoundTrip {
		t.Errorf("the clock there is %s ahead", ahead)
	}
}
