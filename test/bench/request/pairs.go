package request

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// kind is a way to configure an Envoy.
type kind struct {
	name   string
	static bool
	change change // of an edge
}

var (
	static = kind{name: "static", static: true}
	edge   = kind{name: "edge"}
)

// comparison is one row: how a second kind of Envoy compares with a first.
type comparison struct {
	name          string
	first, second kind
	load          load
	site, against site // of the second, and of the first; unset: small
	pairs         int
	half          bool // at half of the rate at which both saturate their processor, else as fast as they can
}

// pair is what one run of both gave, the second relative to the first.
type pair struct{ cpu, rate, p50, p99 float64 }

// side is one Envoy of a pair.
type side struct {
	envoy   *process
	client  client
	micros  float64 // of processor for each request
	sent    sent
	problem error
}

// bench starts Envoys and measures them.
type bench struct {
	dir, envoy  string
	hub         *hub
	certificate corev1.Secret
	started     int
	rate        map[string]float64 // at which pairs saturate, of each, by load
}

// start starts an Envoy and waits until it serves.
func (b *bench) start(ctx context.Context, k kind, s site) (*process, string, error) {
	b.started++
	n := b.started
	pool, address := fmt.Sprintf("edge-%d", n), fmt.Sprintf("127.1.%d.%d", n/250, n%250+1)
	dir := filepath.Join(b.dir, pool)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, "", err
	}
	config := filepath.Join(dir, "bootstrap.yaml")
	if k.static {
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, "site.crt"), b.certificate.Data[corev1.TLSCertKey], 0o600),
			os.WriteFile(filepath.Join(dir, "site.key"), b.certificate.Data[corev1.TLSPrivateKeyKey], 0o600),
			os.WriteFile(config, []byte(s.staticBootstrap(address, dir)), 0o600))
		if err != nil {
			return nil, "", err
		}
	} else {
		p, err := s.program(pool, address, b.certificate)
		if err == nil {
			err = errors.Join(b.hub.bootstrap(ctx, pool, address, dir), b.hub.serve(p, pool, k.change.resource))
		}
		if err == nil && k.change.bootstrap != nil {
			err = k.change.bootstrap(config)
		}
		if err != nil {
			return nil, "", err
		}
	}
	p, err := start(ctx, envoyProcessor, filepath.Join(dir, "stdout"), b.envoy, "-c", config, "--service-node", pool, "--service-cluster", pool,
		"--disable-hot-restart", "--ignore-unknown-dynamic-fields", "--concurrency", "1", "--log-level", "warning")
	if err != nil {
		return nil, "", err
	}
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = errors.Join(awaitPort(waiting, fmt.Sprintf("%s:%d", address, plainPort)), awaitPort(waiting, fmt.Sprintf("%s:%d", address, tlsPort)))
	if err != nil {
		p.stop()
		err = fmt.Errorf("%s: %w: %s", k.name, err, p.err.String())
	}
	return p, address, err
}

// measure runs one pair of a comparison.
func (b *bench) measure(ctx context.Context, c comparison) (pair, [2]side, error) {
	var sides [2]side
	order := []int{0, 1}
	rand.Shuffle(2, func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, i := range order {
		k, s := c.first, c.against
		if i == 1 {
			k, s = c.second, c.site
		}
		p, address, err := b.start(ctx, k, s)
		if err != nil {
			return pair{}, sides, err
		}
		defer p.stop()
		path := c.load.path
		if path == "" {
			path = s.path()
		}
		sides[i] = side{envoy: p, client: client{c.load, address, path, b.dir}}
	}
	rate := 0.0
	if c.half {
		rate = b.rate[c.load.name] / 2
	}
	for _, d := range []time.Duration{0, duration} { // first its connections and statistics are made
		var all sync.WaitGroup
		for _, i := range order {
			all.Go(func() { sides[i].run(ctx, d, rate) })
		}
		all.Wait()
	}
	first, second := sides[0], sides[1]
	result := pair{cpu: second.micros / first.micros, rate: second.sent.rate / first.sent.rate}
	if c.half {
		result.p50 = ratio(percentile(second.sent.times, 50), percentile(first.sent.times, 50))
		result.p99 = ratio(percentile(second.sent.times, 99), percentile(first.sent.times, 99))
	}
	for i := range order {
		_ = os.RemoveAll(filepath.Join(b.dir, fmt.Sprintf("edge-%d", b.started-i))) // the logs
	}
	return result, sides, errors.Join(first.problem, second.problem)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

func (s *side) run(ctx context.Context, d time.Duration, rate float64) {
	before, err := s.envoy.cpu()
	if err == nil {
		s.sent, err = s.client.run(ctx, d, rate)
	}
	after, err2 := s.envoy.cpu()
	s.problem = errors.Join(s.problem, err, err2)
	s.micros = float64((after - before).Nanoseconds()) / 1000 / float64(max(s.sent.requests, 1))
}

// spread are the median and the range of some values.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return spread{}
	}
	median := s[len(s)/2]
	if len(s)%2 == 0 {
		median = (median + s[len(s)/2-1]) / 2
	}
	return spread{median, s[0], s[len(s)-1]}
}
