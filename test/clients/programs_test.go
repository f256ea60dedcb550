package clients

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
)

// httpClients are the clients of TestHTTP.
func httpClients(t *testing.T, tools install.Clients, e *edge, backends []backend) []client {
	t.Helper()
	dir := t.TempDir()
	for _, size := range sizes {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, strconv.Itoa(size)), pattern(size), 0o600))
	}
	curl := func(name, scheme string, flag string, can feature) client {
		can |= bodies | slowly | slowReads | rawPath | anyHeader | patient
		return client{name: "curl-" + name, scheme: scheme, can: can, run: each(curlWith(dir, e.ca, flag))}
	}
	clients := []client{
		curl("1.0", "http", "--http1.0", heavy|kept),
		curl("1.1", "http", "--http1.1", chunks|continues|kept|heavy),
		curl("h2c-offered", "http", "--http2", chunks|kept),
		// Not kept: curl 7.88 itself fails with its second request on such a connection.
		curl("h2c", "http", "--http2-prior-knowledge", chunks|trailers|heavy),
		curl("1.1-tls", "https", "--http1.1", chunks|continues|kept),
		curl("h2-tls", "https", "--http2", chunks|trailers|kept|heavy),
		nginxClient(t, tools, e, backends),
	}
	python := pythonEnv(t, tools)
	node := []string{"NODE_PATH=" + tools.NodePath, "NODE_EXTRA_CA_CERTS=" + e.ca}
	for _, side := range []struct {
		suffix, scheme string
		can            feature
	}{{"", "http", heavy}, {"-tls", "https", 0}} {
		can := side.can | bodies | chunks | slowly | slowReads | kept | anyHeader | patient
		clients = append(clients,
			client{"requests" + side.suffix, side.scheme, can,
				process(python, "python3", testdata(t, "python/requests_client.py"), e.ca)},
			client{"aiohttp" + side.suffix, side.scheme, can | rawPath | continues | webSockets,
				process(python, "python3", testdata(t, "python/aiohttp_client.py"), e.ca)},
			client{"fetch" + side.suffix, side.scheme, can | webSockets,
				process(node, tools.Node, testdata(t, "node/client.js"))},
			client{"httpclient" + side.suffix, side.scheme, can | rawPath | continues, process(nil, javaCommand(t, tools, "HttpClient", e.ca)...)})
	}
	return clients
}

// each makes a client of a function for one exchange: those that wait run at once, of the others a few at a time.
func each(once func(context.Context, exchange) (result, error)) func(context.Context, []exchange, func(result)) error {
	return func(ctx context.Context, exchanges []exchange, report func(result)) error {
		busy := make(chan struct{}, 2)
		var running sync.WaitGroup
		for _, e := range exchanges {
			if !e.Waits {
				busy <- struct{}{}
			}
			running.Go(func() {
				if !e.Waits {
					defer func() { <-busy }()
				}
				r, err := once(ctx, e)
				r.ID = e.ID
				if err != nil {
					r.Error = err.Error()
				}
				report(r)
			})
		}
		running.Wait()
		return nil
	}
}

// curlWith runs curl for one exchange. The bodies to send are files of dir.
func curlWith(dir, ca, version string) func(context.Context, exchange) (result, error) {
	return func(ctx context.Context, e exchange) (r result, err error) {
		headers, err := os.CreateTemp(dir, "headers")
		if err != nil {
			return r, err
		}
		defer headers.Close()
		args := []string{"--silent", "--show-error", "--max-time", "150", version, "--cacert", ca, "--path-as-is", "--globoff", "--dump-header", headers.Name()}
		if e.Method == http.MethodHead {
			args = append(args, "--head")
		} else {
			args = append(args, "--request", e.Method)
		}
		for _, h := range e.Headers {
			args = append(args, "--header", h[0]+": "+h[1])
		}
		var in io.Reader
		switch {
		case e.Body < 0:
		case e.Chunked:
			args, in = append(args, "--upload-file", "-"), paused(e)
		default:
			args = append(args, "--header", "content-type: application/octet-stream", "--data-binary", "@"+filepath.Join(dir, strconv.Itoa(e.Body)))
			if e.Pause > 0 {
				args = append(args, "--limit-rate", strconv.Itoa(e.Body/int(e.Pause)))
			}
		}
		if e.Expect {
			args = append(args, "--header", "expect: 100-continue")
		}
		if e.Again > 0 { // each begins so long after the one before
			args = append(args, "--rate", fmt.Sprintf("%.0f/m", 60/e.Again), "--output", os.DevNull, e.URL)
		}
		cmd := exec.CommandContext(ctx, "curl", append(args, "--output", "-", e.URL)...)
		var complaint bytes.Buffer
		cmd.Stdin, cmd.Stderr = in, &complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			return r, err
		}
		if err := cmd.Start(); err != nil {
			return r, err
		}
		if e.Method == http.MethodHead { // curl prints the headers as if they were the body
			_, err = io.Copy(io.Discard, out)
		} else {
			err = readBody(&r, e, out)
		}
		if err := errors.Join(err, cmd.Wait()); err != nil {
			return r, fmt.Errorf("curl: %w: %s", err, complaint.String())
		}
		return r, curlHeaders(&r, headers)
	}
}

// paused is a body of two halves with a pause between them.
func paused(e exchange) io.Reader {
	whole := pattern(e.Body)
	if e.Pause == 0 {
		return bytes.NewReader(whole)
	}
	out, in := io.Pipe()
	go func() {
		_, _ = in.Write(whole[:len(whole)/2])
		time.Sleep(time.Duration(e.Pause * float64(time.Second)))
		_, _ = in.Write(whole[len(whole)/2:])
		in.Close()
	}()
	return out
}

// readBody reads an answer's body, and stops reading for a while after its first bytes if the exchange says so.
func readBody(r *result, e exchange, from io.Reader) error {
	sum := sha256.New()
	piece := make([]byte, 16<<10)
	for {
		n, err := from.Read(piece)
		if r.Length == 0 && n > 0 {
			time.Sleep(time.Duration(e.Read * float64(time.Second)))
		}
		sum.Write(piece[:n])
		r.Length += n
		r.Text += string(piece[:min(n, 16<<10-len(r.Text))])
		if err != nil {
			r.SHA256 = hex.EncodeToString(sum.Sum(nil))
			if err == io.EOF {
				err = nil
			}
			return err
		}
	}
}

// curlHeaders reads what curl has dumped: the headers of all answers, of which the last counts, and its trailers.
func curlHeaders(r *result, from io.Reader) error {
	all, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	var into map[string]string
	for line := range strings.Lines(string(all)) {
		line = strings.TrimRight(line, "\r\n")
		name, value, isHeader := strings.Cut(line, ": ")
		switch {
		case strings.HasPrefix(line, "HTTP/"):
			fields := strings.Fields(line)
			r.Version = fields[0]
			if r.Status, err = strconv.Atoi(fields[1]); err != nil {
				return err
			}
			r.Headers, r.Trailers = map[string]string{}, map[string]string{}
			into = r.Headers
		case line == "":
			into = r.Trailers
		case isHeader:
			join(into, name, value)
		}
	}
	return nil
}

func join(into map[string]string, name, value string) {
	name = strings.ToLower(name)
	if before, found := into[name]; found {
		value = before + ", " + value
	}
	into[name] = value
}

// nginxClient is nginx in front of the edge, as a proxy with its defaults, and a client in front of nginx.
func nginxClient(t *testing.T, tools install.Clients, e *edge, backends []backend) client {
	t.Helper()
	var servers strings.Builder
	through := map[string]string{} // the edge's ports to nginx's
	var await []uint16
	for _, b := range backends {
		port := freePort(t)
		fmt.Fprintf(&servers, "  server {\n    listen 127.0.0.1:%d;\n    location / { proxy_pass http://127.0.0.1:%d; }\n  }\n", port, e.ports[b.name].plain)
		through[fmt.Sprintf(":%d/", e.ports[b.name].plain)] = fmt.Sprintf(":%d/", port)
		await = append(await, port)
	}
	dir := t.TempDir()
	start(t, "nginx as a client", exec.Command(tools.Nginx, "-e", "stderr", "-p", dir, "-c", nginxConfig(t, dir, "client.conf", "@SERVERS@", servers.String())))
	for _, port := range await {
		awaitPort(t, port)
	}
	return client{"nginx", "http", heavy | bodies | chunks | slowly | slowReads, each(func(ctx context.Context, x exchange) (result, error) {
		for from, to := range through {
			x.URL = strings.Replace(x.URL, from, to, 1)
		}
		return goOnce(ctx, x)
	})}
}

var withoutPool = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

// goOnce makes one exchange with Go's client.
func goOnce(ctx context.Context, e exchange) (r result, err error) {
	var in io.Reader
	if e.Body >= 0 {
		in = paused(e)
	}
	request, err := http.NewRequestWithContext(ctx, e.Method, e.URL, in)
	if err != nil {
		return r, err
	}
	if e.Body > 0 && !e.Chunked {
		request.ContentLength = int64(e.Body)
	}
	for _, h := range e.Headers {
		request.Header.Add(h[0], h[1])
	}
	answer, err := withoutPool.Transport.RoundTrip(request)
	if err != nil {
		return r, err
	}
	defer answer.Body.Close()
	err = readBody(&r, e, answer.Body)
	r.Status, r.Version, r.Headers = answer.StatusCode, answer.Proto, map[string]string{}
	for name, values := range answer.Header {
		for _, v := range values {
			join(r.Headers, name, v)
		}
	}
	return r, err
}
