package server

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A long list comes in many parts, compressed for a client that asks for it: one gzip stream, whole, in order.
func TestLongListIsCompressed(t *testing.T) {
	f := newFixture(t)
	f.member("a", "shop")
	const services = 2000
	for i := range services {
		name := fmt.Sprintf("web-%04d", i)
		f.export("shop", name, "a")
		f.push("a", "shop", name, fmt.Sprintf("10.97.%d.%d", i/250, i%250+1))
	}
	f.pass()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.address+slicesPath, nil)
	f.Must(err)
	r.Header.Set("Authorization", "Bearer "+userOf("a"))
	r.Header.Set("Accept-Encoding", "gzip") // so that the transport does not decompress
	answer, err := insecure(t).RoundTrip(r)
	f.Must(err)
	defer answer.Body.Close()
	if answer.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal("not compressed: ", answer.Header)
	}
	count := &counter{Reader: answer.Body}
	z, err := gzip.NewReader(count)
	f.Must(err)
	z.Multistream(false) // as strict clients read it
	text, err := io.ReadAll(z)
	f.Must(err)
	var list discoveryv1.EndpointSliceList
	f.Must(json.Unmarshal(text, &list))
	if len(list.Items) != services || list.ResourceVersion == "" {
		t.Errorf("%d slices at version %q", len(list.Items), list.ResourceVersion)
	}
	for i := 1; i < len(list.Items); i++ {
		if list.Items[i-1].Name >= list.Items[i].Name {
			t.Fatalf("%s comes before %s", list.Items[i-1].Name, list.Items[i].Name)
		}
	}
	f.Eventually("the list to be counted", func() bool {
		return testutil.ToFloat64(f.metrics.requests.WithLabelValues("endpointslices", "list", "200")) == 1
	})
	t.Logf("%d bytes, compressed %d", len(text), count.n)
	if count.n*4 > len(text) {
		t.Errorf("%d bytes are compressed to %d", len(text), count.n)
	}
}

// counter counts what is read.
type counter struct {
	io.Reader
	n int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}
