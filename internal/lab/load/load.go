package load

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Timeout is how long a client waits for an answer.
const Timeout = 15 * time.Second

// Config is one stream of requests.
type Config struct {
	Rate   float64 // requests per second
	Method string  // GET where empty
	URL    string
	Host   string
	Header http.Header
	Body   string // sent with methods that have one
	Client *http.Client
}

// Sample is one request and its answer.
type Sample struct {
	At      time.Time     // when it was due, whether or not the sender was late
	Took    time.Duration // since At, so that a sender who is late makes nothing look quick
	Status  int           // 0: none
	Cluster string
	Pod     string
	Version string
	Error   string // why there is no answer
}

// DialContext dials from where the clients are.
type DialContext func(ctx context.Context, network, address string) (net.Conn, error)

// Client keeps connections alive and follows no redirect.
func Client(dial DialContext, config *tls.Config) *http.Client {
	return &http.Client{
		Timeout: Timeout,
		Transport: &http.Transport{
			DialContext:         dial,
			TLSClientConfig:     config,
			MaxIdleConns:        0,
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Recorder is a stream of requests under way.
type Recorder struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	samples []Sample
}

// Start sends requests until Stop or the end of ctx.
func Start(ctx context.Context, config Config) *Recorder {
	ctx, cancel := context.WithCancel(ctx)
	r := &Recorder{cancel: cancel, done: make(chan struct{})}
	go r.run(ctx, config)
	return r
}

// Run sends count requests and waits for their answers.
func Run(ctx context.Context, config Config, count int) []Sample {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &Recorder{cancel: cancel, done: make(chan struct{})}
	r.send(ctx, config, count)
	return r.Stop()
}

// Stop ends the stream, waits for the answers that are due, and returns all
// samples in the order in which they were due.
func (r *Recorder) Stop() []Sample {
	r.cancel()
	<-r.done
	return r.Samples()
}

// Samples are those that have been answered so far, in order of their due time.
func (r *Recorder) Samples() []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sorted(r.samples)
}

func (r *Recorder) run(ctx context.Context, config Config) { r.send(ctx, config, -1) }

// send is due to send request i at start + i/rate; it catches up after being
// late, so that the rate is kept (open loop).
func (r *Recorder) send(ctx context.Context, config Config, count int) {
	defer close(r.done)
	var pending sync.WaitGroup
	defer pending.Wait()
	start := time.Now()
	for i := 0; i != count; i++ {
		due := start.Add(time.Duration(float64(i) / config.Rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		pending.Go(func() { r.record(once(config, due)) })
	}
}

func (r *Recorder) record(s Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
}

// once sends one request. It outlives the stream's context: a request that
// was sent is always counted.
func once(config Config, due time.Time) Sample {
	s := Sample{At: due}
	request, err := http.NewRequestWithContext(context.Background(), method(config), config.URL, neverReplayed(config.Body))
	if err != nil {
		s.Error = err.Error()
		return s
	}
	request.Host = config.Host
	if config.Header != nil {
		request.Header = config.Header.Clone()
	}
	response, err := config.Client.Do(request)
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		s.Status = response.StatusCode
		s.Cluster, s.Pod, s.Version = response.Header.Get("X-Cluster"), response.Header.Get("X-Pod"), response.Header.Get("X-Version")
	}
	s.Took = time.Since(due)
	if err != nil {
		s.Status, s.Error = 0, err.Error()
	}
	return s
}

func method(config Config) string {
	if config.Method == "" {
		return http.MethodGet
	}
	return config.Method
}

// neverReplayed hides from net/http that a body can be sent again. With a body
// that it does not know it retries nothing, also no GET on a dead idle
// connection (net/http, Request.isReplayable); an empty one sends no body.
func neverReplayed(body string) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(body)))
}
