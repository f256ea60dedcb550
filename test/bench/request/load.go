package request

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is what a client asks for: one kind of request over and over.
type load struct {
	name    string
	tls, h2 bool
	path    string // empty: the site's
	post    bool   // a body of largeBody
	headers int    // that a request has beside the usual ones
}

var (
	plain        = load{name: "HTTP/1.1"}
	largeAnswers = load{name: "64 KiB answers", path: "/64k"}
)

// loads are the kinds of requests that are measured. Answers have 300 bytes unless said.
var loads = []load{
	plain,
	{name: "HTTP/2", h2: true},
	{name: "HTTP/1.1 over TLS", tls: true},
	{name: "HTTP/2 over TLS", tls: true, h2: true},
	largeAnswers,
	{name: "64 KiB POSTs", path: "/post", post: true},
	{name: "1 KiB path, 40 headers", path: "/" + strings.Repeat("long-segment/", 80), headers: 40},
}

const connections = 8

// client is h2load with one load.
type client struct {
	load
	address string // of the Envoy
	path    string
	dir     string
}

// sent is what a client has got.
type sent struct {
	requests int
	rate     float64 // a second
	times    []time.Duration
}

// run sends for a time, or if that is 0 a few hundred requests, as fast as it gets answers or at a rate. With a rate it
// has the time of each request.
func (c client) run(ctx context.Context, d time.Duration, rate float64) (sent, error) {
	scheme, port := "http", plainPort
	if c.tls {
		scheme, port = "https", tlsPort
	}
	args := []string{"-c", otherProcessor, "h2load", "-t", "1", "-c", strconv.Itoa(connections), fmt.Sprintf("--connect-to=%s:%d", c.address, port)}
	if d > 0 {
		args = append(args, "-D", fmt.Sprintf("%dms", d.Milliseconds()))
	} else {
		args = append(args, "-n", "400")
		rate = 0
	}
	if c.h2 {
		args = append(args, "-m", "4")
	} else {
		args = append(args, "--h1")
	}
	if c.post {
		args = append(args, "-d", filepath.Join(c.dir, "64k"))
	}
	for n := range c.headers {
		args = append(args, "-H", fmt.Sprintf("x-header-%d: some value of a header", n))
	}
	log := filepath.Join(c.dir, "times-"+c.address)
	if rate > 0 {
		_ = os.Remove(log) // h2load adds to it
		args = append(args, fmt.Sprintf("--rps=%.0f", rate/connections), "--log-file="+log)
	}
	out, err := exec.CommandContext(ctx, "taskset", append(args, fmt.Sprintf("%s://s0.example.com%s", scheme, c.path))...).CombinedOutput()
	if err != nil {
		return sent{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	s, err := parse(string(out))
	if err != nil || rate == 0 {
		return s, err
	}
	s.times, err = timesOf(log)
	return s, err
}

// parse reads the summary of h2load, and fails if any answer was not 2xx.
func parse(out string) (s sent, err error) {
	var total, started, done, succeeded, failed, errored, timeout int
	var c2, c3, c4, c5 int
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "finished in "):
			_, rest, _ := strings.Cut(line, ", ")
			_, err = fmt.Sscanf(rest, "%f req/s", &s.rate)
		case strings.HasPrefix(line, "requests: "):
			_, err = fmt.Sscanf(line, "requests: %d total, %d started, %d done, %d succeeded, %d failed, %d errored, %d timeout", &total, &started, &done, &succeeded, &failed, &errored, &timeout)
		case strings.HasPrefix(line, "status codes: "):
			_, err = fmt.Sscanf(line, "status codes: %d 2xx, %d 3xx, %d 4xx, %d 5xx", &c2, &c3, &c4, &c5)
		}
		if err != nil {
			return s, fmt.Errorf("h2load says %q: %w", line, err)
		}
	}
	if s.requests = done; done == 0 || failed+errored+timeout+c3+c4+c5 > 0 {
		return s, fmt.Errorf("h2load: %d of %d requests were answered 2xx", c2, started)
	}
	return s, nil
}

// timesOf reads the log file of h2load: start, status and microseconds of each request.
func timesOf(file string) (times []time.Duration, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		n, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, err
		}
		times = append(times, time.Duration(n)*time.Microsecond)
	}
	slices.Sort(times)
	return times, lines.Err()
}

// percentile of sorted times, nearest rank.
func percentile(times []time.Duration, percent int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[max((len(times)*percent+99)/100, 1)-1]
}
