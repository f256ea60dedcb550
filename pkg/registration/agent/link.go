package agent

import (
	"errors"
	"fmt"
	"net/http"
	"sync"

	"k8s.io/client-go/rest"
)

// errNoCredential is the answer to a request while this cluster has no credential.
var errNoCredential = errors.New("this cluster has no credential of the hub")

// link sends each new request with the credential of that moment. A request that is under
// way goes on with the one that it began with, over its own connection: a watch outlives
// the renewal, and ends by its own time limit, before its credential does. client-go's
// reload of certificate files closes all connections instead.
type link struct {
	config func() *rest.Config // of now; nil: there is no credential
	clock  *hubClock

	mu   sync.Mutex
	last *rest.Config      // guarded by mu
	via  http.RoundTripper // guarded by mu; of last
}

// RoundTrip implements http.RoundTripper.
func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	via, err := l.transport()
	if err != nil {
		return nil, err
	}
	return via.RoundTrip(r)
}

func (l *link) transport() (http.RoundTripper, error) {
	config := l.config()
	if config == nil {
		return nil, errNoCredential
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if config != l.last {
		via, err := rest.TransportFor(config)
		if err != nil {
			return nil, fmt.Errorf("transport to the hub: %w", err)
		}
		l.last, l.via = config, l.clock.reads(via)
	}
	return l.via, nil
}
