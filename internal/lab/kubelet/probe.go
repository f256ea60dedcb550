package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"crossway.dev/crossway/internal/lab/network"
)

// startProbeInterval is how often a container is probed that has not been ready yet.
const startProbeInterval = 100 * time.Millisecond

// failuresBeforeMessage is how many probes fail in a row before the pod's message says why.
const failuresBeforeMessage = 50

// probe keeps c.ready true to the container's readiness probe until ctx ends.
func (c *container) probe(ctx context.Context) {
	p := c.spec.ReadinessProbe
	if p == nil {
		if c.accepts(ctx) {
			c.set(func() { c.ready = true })
		}
		return
	}
	if !sleep(ctx, time.Duration(p.InitialDelaySeconds)*time.Second) {
		return
	}
	ready, inARow, failed := false, int32(0), 0
	for {
		err := c.probeOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if (err == nil) == ready {
			inARow = 0
		} else {
			inARow++
		}
		if failed++; err == nil {
			failed = 0
		}
		if failed == failuresBeforeMessage {
			c.w.explain("Unhealthy", fmt.Sprintf("readiness probe of %s: %v", c.spec.Name, err))
		}
		if (!ready && inARow >= max(1, p.SuccessThreshold)) || (ready && inARow >= max(1, p.FailureThreshold)) {
			ready, inARow = !ready, 0
			c.set(func() { c.ready = ready })
			c.w.explain("", "")
		}
		pause := time.Duration(max(1, p.PeriodSeconds)) * time.Second
		if !ready {
			pause = startProbeInterval
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// accepts waits until the container's first TCP port accepts a connection; one
// without ports is ready as soon as it runs.
func (c *container) accepts(ctx context.Context) bool {
	for _, p := range c.spec.Ports {
		if p.Protocol != v1.ProtocolTCP {
			continue
		}
		for c.dial(ctx, c.w.address(), intstr.FromInt32(p.ContainerPort)) != nil {
			if !sleep(ctx, startProbeInterval/5) {
				return false
			}
		}
		return true
	}
	return true
}

func (c *container) probeOnce(ctx context.Context, p *v1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(1, p.TimeoutSeconds))*time.Second)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return c.httpGet(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		return c.dial(ctx, p.TCPSocket.Host, p.TCPSocket.Port)
	case p.Exec != nil:
		process := c.current()
		if process == nil {
			return errors.New("not running")
		}
		return c.exec(ctx, process, execution{args: p.Exec.Command})
	}
	return errors.New("the lab knows httpGet, tcpSocket and exec probes")
}

func (c *container) dial(ctx context.Context, host string, port intstr.IntOrString) error {
	conn, err := c.connect(ctx, net.JoinHostPort(c.host(host), c.port(port)))
	if err == nil {
		conn.Close()
	}
	return err
}

// connect dials as a kubelet does, from the node.
func (c *container) connect(ctx context.Context, address string) (net.Conn, error) {
	return network.Dial(ctx, c.w.k.Network.NS, "tcp", address)
}

func (c *container) host(host string) string {
	if host == "" {
		return c.w.address()
	}
	return host
}

func (c *container) port(p intstr.IntOrString) string {
	if p.Type == intstr.Int {
		return strconv.Itoa(p.IntValue())
	}
	for _, named := range c.spec.Ports {
		if named.Name == p.StrVal {
			return strconv.Itoa(int(named.ContainerPort))
		}
	}
	return p.StrVal
}

func (c *container) httpGet(ctx context.Context, get *v1.HTTPGetAction) error {
	scheme := "http"
	if get.Scheme == v1.URISchemeHTTPS {
		scheme = "https"
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		return err
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(c.host(get.Host), c.port(get.Port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/lab")
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
	}
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // as kubelets do
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return c.connect(ctx, address) },
	}
	res, err := transport.RoundTrip(req) // a redirect is a success
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 10<<10))
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("%s says %s", u, res.Status)
	}
	return nil
}
