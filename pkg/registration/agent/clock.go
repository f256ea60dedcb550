package agent

import (
	"net/http"
	"sync/atomic"
	"time"
)

// maxRoundTrip is how long a request may take whose answer is a reading of the hub's clock.
const maxRoundTrip = 2 * time.Second

// hubClock is the hub's clock as its answers show it (RFC 9110, Date: whole seconds). By
// it a credential's life is reckoned, because by it the hub judges the credential.
type hubClock struct {
	now    func() time.Time
	ahead  atomic.Int64 // how far it is ahead of this cluster's clock, in nanoseconds
	called atomic.Bool
}

// Now is the time at the hub. Before its first answer it is this cluster's.
func (c *hubClock) Now() time.Time {
	return c.now().Add(time.Duration(c.ahead.Load()))
}

// reads makes a transport one that reads the hub's clock from each answer.
func (c *hubClock) reads(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		sent := c.now()
		response, err := next.RoundTrip(r)
		if err != nil {
			return response, err
		}
		took := c.now().Sub(sent)
		said, parseErr := http.ParseTime(response.Header.Get("Date"))
		if parseErr == nil && took < maxRoundTrip {
			// the middle of the request, and of the second that the header rounds down to
			c.ahead.Store(int64(said.Add(time.Second / 2).Sub(sent.Add(took / 2))))
			c.called.Store(true)
		}
		return response, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
