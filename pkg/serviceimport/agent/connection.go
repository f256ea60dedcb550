package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

const (
	// A request that the member API did not take is sent again after firstRetry,
	// then after twice as long each time, at most maxRetry. An informer by itself
	// would wait up to a minute, so long after a hub is back.
	firstRetry = 250 * time.Millisecond
	maxRetry   = 5 * time.Second
	// placeTimeout is how long reading the ConfigMap may take.
	placeTimeout = 5 * time.Second
	// troubleInterval is how often trouble is logged while it lasts.
	troubleInterval = time.Minute
)

// place is where the member API is, and who signed its certificate; and where gossip is,
// of which fleet.
type place struct{ address, ca, gossip, clusterSet string }

// connection sends requests to the member API. Before each one it reads the place
// in the hub's ConfigMap. While the hub's API server is away, the last place counts.
// It gives up only with the request's context: an informer's list takes as long as
// the hub is away.
type connection struct {
	now func() *rest.Config // the credentials for the hub's API server; nil: there are none
	hub client.Reader
	// namespace is that of the ConfigMap.
	namespace string
	logger    logr.Logger

	mu          sync.Mutex
	place       place
	credentials *rest.Config
	via         http.RoundTripper // to place, with credentials; a watch that is open goes on with older ones
	told        bool              // the last log line is of trouble
	trouble     rate.Sometimes    // what is logged of it: texts differ with each try, in the port that failed
}

func newConnection(now func() *rest.Config, hub client.Reader, namespace string) *connection {
	return &connection{now: now, hub: hub, namespace: namespace, logger: ctrl.Log.WithName("member-api"), trouble: rate.Sometimes{First: 1, Interval: troubleInterval}}
}

// RoundTrip sends a request without a body, again and again until the API takes it.
func (c *connection) RoundTrip(request *http.Request) (*http.Response, error) {
	for delay := firstRetry; ; delay = min(2*delay, maxRetry) {
		response, err := c.send(request)
		trouble := troubleOf(response, err)
		c.log(trouble)
		if trouble == "" {
			return response, err
		}
		if response != nil {
			_ = response.Body.Close()
		}
		select {
		case <-request.Context().Done():
			return nil, request.Context().Err()
		case <-time.After(delay):
		}
	}
}

// gossip is where the hub gossips, and the fleet's name; "": it does not, or nothing has
// been asked of the API yet.
func (c *connection) gossip() (address, clusterSet string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place.gossip, c.place.clusterSet
}

// once sends requests once, whatever the answer.
type once struct{ *connection }

// RoundTrip sends a request.
func (o once) RoundTrip(request *http.Request) (*http.Response, error) { return o.send(request) }

func (c *connection) send(request *http.Request) (*http.Response, error) {
	address, via, err := c.where(request.Context())
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.URL.Scheme, request.URL.Host, request.Host = address.Scheme, address.Host, ""
	return via.RoundTrip(request)
}

// troubleOf tells why a request must be sent again; "": the answer is one that an
// informer understands.
func troubleOf(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	switch response.StatusCode {
	case http.StatusOK, http.StatusGone, http.StatusBadRequest: // gone: an informer lists again
		return ""
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 256)) // only for the log
	return response.Status + " " + string(text)
}

// where returns the API's address and a transport to it.
func (c *connection) where(ctx context.Context) (*url.URL, http.RoundTripper, error) {
	now, err := c.readPlace(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.via == nil {
		return nil, nil, err
	}
	if err != nil {
		now = c.place
	}
	if credentials := c.now(); credentials != nil && (now != c.place || credentials != c.credentials) {
		via, err := rest.TransportFor(configFor(now, credentials))
		if err != nil {
			return nil, nil, fmt.Errorf("transport to the member API: %w", err)
		}
		c.place, c.credentials, c.via = now, credentials, via
	}
	if c.via == nil {
		return nil, nil, errors.New("this cluster has no credential of the hub")
	}
	address, err := url.Parse(c.place.address)
	if err != nil {
		return nil, nil, fmt.Errorf("address of the member API: %w", err)
	}
	return address, c.via, nil
}

func (c *connection) readPlace(ctx context.Context) (place, error) {
	ctx, cancel := context.WithTimeout(ctx, placeTimeout)
	defer cancel()
	var m corev1.ConfigMap
	if err := c.hub.Get(ctx, types.NamespacedName{Namespace: c.namespace, Name: v1alpha1.MemberAPIConfigMap}, &m); err != nil {
		return place{}, fmt.Errorf("read where the member API is: %w", err)
	}
	return place{address: m.Data[v1alpha1.MemberAPIAddress], ca: m.Data[v1alpha1.MemberAPICA],
		gossip: m.Data[v1alpha1.MemberAPIGossip], clusterSet: m.Data[v1alpha1.MemberAPIClusterSet]}, nil
}

// configFor is the configuration for the member API: the hub's credentials, and the
// API's own address and CA.
func configFor(p place, credentials *rest.Config) *rest.Config {
	config := rest.CopyConfig(credentials)
	config.Host, config.APIPath = p.address, ""
	config.Insecure, config.ServerName, config.CAFile, config.CAData = false, "", "", []byte(p.ca)
	return config
}

func (c *connection) log(trouble string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case trouble != "":
		c.trouble.Do(func() {
			c.told = true
			c.logger.Info("waiting for the hub's member API: imports stay as they are", "address", cmp.Or(c.place.address, "unknown"), "answer", trouble)
		})
	case c.told:
		c.told = false
		c.logger.Info("this cluster reads its imports", "address", c.place.address)
	}
}
