package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// exchange is what a client sends, and how; its JSON goes to the clients' processes.
type exchange struct {
	ID      string      `json:"id"`
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Headers [][2]string `json:"headers"`
	Body    int         `json:"body"`    // bytes of the pattern, -1: none
	Chunked bool        `json:"chunked"` // the length is not said before
	// Seconds: of a pause in the middle of the body, of not reading after the first
	// bytes of the answer, and until the same request on the same connection.
	Pause float64 `json:"pause"`
	Read  float64 `json:"read"`
	Again float64 `json:"again"`
	// Expect 100-continue before the body is sent.
	Expect bool `json:"expect"`
	// Waits: it begins at once. Of the others, a client makes two at a time.
	Waits bool `json:"waits"`
	// Messages are the sizes of what a WebSocket sends and must get back, Pause apart.
	Messages []int `json:"messages"`
}

// result is what a client got.
type result struct {
	ID       string            `json:"id"`
	Error    string            `json:"error"`
	Status   int               `json:"status"`
	Version  string            `json:"version"`
	Headers  map[string]string `json:"headers"`
	Trailers map[string]string `json:"trailers"`
	Length   int               `json:"length"`
	SHA256   string            `json:"sha256"`
	Text     string            `json:"text"` // the first 16 KiB of the body
}

const (
	small = 64 << 10
	large = 10 << 20
)

var sizes = []int{0, small, large}

// feature is what not every client does. Features add up.
type feature int

const (
	bodies    feature = 1 << iota // sends a body
	chunks                        // sends a body whose length it does not say
	slowly                        // pauses in the middle of a body
	slowReads                     // stops reading for a while
	kept                          // sends two requests on one connection
	rawPath                       // sends the path as it is written
	continues                     // waits for 100-continue
	trailers                      // speaks HTTP/2, and shows trailers; an edge drops those of HTTP/1.1
	anyHeader                     // sends each header
	webSockets
	patient // waits longer than a minute
	heavy   // makes the large and slow exchanges, too
)

// httpCase is one exchange with every backend that can have it.
type httpCase struct {
	name    string
	needs   feature
	only    func(backend) bool // nil: all
	path    func(backend) string
	request exchange
	check   func(exchange, backend, result) error
}

func fixed(path string) func(backend) string { return func(backend) string { return path } }

func app(b backend) bool { return b.app() }

// http1 are those where an upload has a connection of its own: in HTTP/2 one that is not read stops the others.
func http1(b backend) bool { return b.app() && b.appProtocol == "" }

func node(b backend) bool      { return strings.HasPrefix(b.name, "node") }
func keeps(b backend) bool     { return b.keepAlive > 0 }
func sockets(b backend) bool   { return b.name == "node" || b.name == "uvicorn" }
func onlyNginx(b backend) bool { return b.name == "nginx" }

// httpCases is the table.
func httpCases() []httpCase {
	cases := []httpCase{
		{name: "head", path: fixed("/bytes/65536"), request: exchange{Method: "HEAD"}, check: empty(200)},
		{name: "no content", only: app, path: fixed("/status/204"), check: empty(204)},
		{name: "not modified", only: app, path: fixed("/status/304"), check: empty(304)},
		{name: "an error of the backend", only: app, path: fixed("/status/503"), check: empty(503)},
		{name: "two cookies", only: app, path: fixed("/cookies"), check: cookies},
		{name: "chunked answer", only: app, path: fixed(fmt.Sprint("/chunks/", small)), check: pattern200(small)},
		{name: "slow answer", needs: heavy, only: onlyNginx, path: fixed(fmt.Sprint("/slow/", small)), check: pattern200(small)},
		{name: "late answer", needs: heavy, only: app, path: fixed("/late/20"), check: text("late")},
		{name: "very late answer", needs: heavy | patient, only: node, path: fixed("/late/70"), check: text("late")},
		{name: "silence in the answer", needs: heavy, only: app, path: fixed("/pause/20"), check: text("ab")},
		{name: "slow reader", needs: heavy | slowReads, path: fixed(fmt.Sprint("/bytes/", large)), request: exchange{Read: 15}, check: pattern200(large)},
		{name: "late reader of the body", needs: heavy | bodies, only: http1, path: fixed("/sum?nap=30"), request: exchange{Method: "PUT", Body: large}, check: received},
		{name: "late reader of a chunked body", needs: heavy | bodies | chunks, only: http1, path: fixed("/sum?nap=30"), request: exchange{Method: "PUT", Body: large, Chunked: true}, check: received},
		{name: "slow upload", needs: heavy | slowly, path: upload, request: exchange{Method: "PUT", Body: small, Pause: 15}, check: received},
		{name: "slow chunked upload", needs: heavy | slowly | chunks, path: upload, request: exchange{Method: "PUT", Body: small, Chunked: true, Pause: 15}, check: received},
		{name: "post", needs: bodies, only: app, path: fixed("/sum"), request: exchange{Method: "POST", Body: small}, check: received},
		{name: "100-continue", needs: continues, path: upload, request: exchange{Method: "PUT", Body: small, Expect: true}, check: received},
		{name: "kept connection", needs: kept, only: keeps, path: fixed("/bytes/0"), request: exchange{Again: 6}, check: pattern200(0)},
		{name: "kept connection of a POST", needs: kept, only: func(b backend) bool { return keeps(b) && b.app() }, path: fixed("/sum"),
			request: exchange{Method: "POST", Body: small, Again: 6}, check: received},
		{name: "trailers", needs: trailers, only: func(b backend) bool { return b.name == "node-h2c" }, path: fixed("/trailers"),
			request: exchange{Headers: [][2]string{{"te", "trailers"}}}, check: trailer},
		{name: "dropped trailers", only: node, path: fixed("/trailers"), check: text("body")},
		{name: "early hints", only: node, path: fixed("/hints"), check: text("hinted")},
		{name: "many headers", path: fixed("/seen"), request: exchange{Headers: many(80)}, check: header("x-many-79", strings.Repeat("m", 60))},
		{name: "a large header", path: fixed("/seen"), request: exchange{Headers: [][2]string{{"x-large", strings.Repeat("l", 7000)}}}, check: header("x-large", strings.Repeat("l", 7000))},
		{name: "a header with underscores", needs: anyHeader, path: fixed("/seen"), request: exchange{Headers: [][2]string{{"tenant_id", "a"}}}, check: underscores},
		{name: "long path", path: func(b backend) string {
			return "/seen/" + strings.Repeat("p", b.line-40) + "?q=" + strings.Repeat("q", 20)
		}, check: seen},
		{name: "escaped slash", path: fixed("/seen/group%2Fproject?x=1"), check: seen},
		{name: "double slash", path: fixed("/seen/fetch/https://host//x"), check: seen},
		{name: "dots", needs: rawPath, path: fixed("/seen/a/../b/./c"), check: normalized("/seen/b/c")},
		{name: "other characters", path: fixed("/seen/%C3%A9%20%25/a:b@c,d;e=f?x=%2B&y=a+b"), check: seen},
		{name: "websocket", needs: webSockets, only: sockets, path: fixed("/ws"), request: exchange{Messages: []int{0, 5, small, 1 << 20}}, check: answered(101)},
		{name: "silent websocket", needs: heavy | webSockets, only: sockets, path: fixed("/ws"), request: exchange{Messages: []int{5, 5}, Pause: 35}, check: answered(101)},
	}
	for _, n := range sizes {
		costs := feature(0)
		if n == large {
			costs = heavy
		}
		cases = append(cases,
			httpCase{name: fmt.Sprint("get ", n), needs: costs, path: fixed(fmt.Sprint("/bytes/", n)), check: pattern200(n)},
			httpCase{name: fmt.Sprint("upload ", n), needs: costs | bodies, path: upload, request: exchange{Method: "PUT", Body: n}, check: received},
			httpCase{name: fmt.Sprint("chunked upload ", n), needs: costs | bodies | chunks, path: upload, request: exchange{Method: "PUT", Body: n, Chunked: true}, check: received})
	}
	for n := range cases {
		if cases[n].request.Method == "" {
			cases[n].request.Method = http.MethodGet
		}
		if cases[n].request.Method == http.MethodGet || cases[n].request.Method == http.MethodHead {
			cases[n].request.Body = -1
		}
	}
	return cases
}

// upload is where a backend takes a body: nginx writes a file, named by each client anew.
func upload(b backend) string {
	if b.app() {
		return "/sum"
	}
	return "/put/"
}

func many(n int) (headers [][2]string) {
	for i := range n {
		headers = append(headers, [2]string{fmt.Sprint("x-many-", i), strings.Repeat("m", 60)})
	}
	return headers
}

func answered(want int) func(exchange, backend, result) error {
	return func(_ exchange, _ backend, r result) error {
		if r.Status != want {
			return fmt.Errorf("status %d, want %d: %.300s", r.Status, want, r.Text)
		}
		return nil
	}
}

func empty(want int) func(exchange, backend, result) error {
	return func(e exchange, b backend, r result) error {
		if err := answered(want)(e, b, r); err != nil {
			return err
		}
		if r.Length > 0 {
			return fmt.Errorf("a body of %d bytes", r.Length)
		}
		return nil
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func pattern200(size int) func(exchange, backend, result) error {
	want := digest(pattern(size))
	return func(e exchange, b backend, r result) error {
		if err := answered(200)(e, b, r); err != nil {
			return err
		}
		if r.Length != size || r.SHA256 != want {
			return fmt.Errorf("%d bytes (the right ones: %v), want %d", r.Length, r.SHA256 == want, size)
		}
		return nil
	}
}

func text(want string) func(exchange, backend, result) error {
	return func(e exchange, b backend, r result) error {
		if err := answered(200)(e, b, r); err != nil {
			return err
		}
		if r.Text != want {
			return fmt.Errorf("body %q, want %q", r.Text, want)
		}
		return nil
	}
}

// received checks that the backend got the whole body.
func received(e exchange, b backend, r result) error {
	if !b.app() { // 201: the file is new; 204: it replaced one
		if r.Status != 201 && r.Status != 204 {
			return fmt.Errorf("status %d, want 201: %.300s", r.Status, r.Text)
		}
		_, name, _ := strings.Cut(e.URL, "/put/")
		got, err := os.ReadFile(filepath.Join(b.files, "put", name))
		if err == nil && digest(got) != digest(pattern(e.Body)) {
			err = fmt.Errorf("the backend got %d bytes, want %d", len(got), e.Body)
		}
		return err
	}
	if err := answered(200)(e, b, r); err != nil {
		return err
	}
	var got struct {
		Length int
		SHA256 string
	}
	if err := json.Unmarshal([]byte(r.Text), &got); err != nil {
		return fmt.Errorf("%q: %w", r.Text, err)
	}
	if got.Length != e.Body || got.SHA256 != digest(pattern(e.Body)) {
		return fmt.Errorf("the backend got %d bytes, want %d", got.Length, e.Body)
	}
	return nil
}

func cookies(e exchange, b backend, r result) error {
	if err := answered(200)(e, b, r); err != nil {
		return err
	}
	if got := r.Headers["set-cookie"]; !strings.Contains(got, "a=1; Path=/") || !strings.Contains(got, "b=2; Path=/") {
		return fmt.Errorf("set-cookie: %q", got)
	}
	return nil
}

func trailer(e exchange, b backend, r result) error {
	if err := text("body")(e, b, r); err != nil {
		return err
	}
	if r.Trailers["x-trailer"] != "last" {
		return fmt.Errorf("trailers %v", r.Trailers)
	}
	return nil
}

// request is what the backend says that it got.
type request struct {
	Method, Path string
	Headers      map[string]string
}

func seenBy(e exchange, b backend, r result) (got request, err error) {
	if err := answered(200)(e, b, r); err != nil {
		return got, err
	}
	return got, json.Unmarshal([]byte(r.Text), &got)
}

// seen checks that the backend got the path as the client sent it.
func seen(e exchange, b backend, r result) error {
	_, want, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(e.URL, "https://"), "http://"), "/")
	return normalized("/"+want)(e, b, r)
}

func normalized(want string) func(exchange, backend, result) error {
	return func(e exchange, b backend, r result) error {
		got, err := seenBy(e, b, r)
		if err == nil && got.Path != want {
			err = fmt.Errorf("the backend saw the path %s, want %s", got.Path, want)
		}
		return err
	}
}

func header(name, want string) func(exchange, backend, result) error {
	return func(e exchange, b backend, r result) error {
		got, err := seenBy(e, b, r)
		if err == nil && got.Headers[name] != want {
			err = fmt.Errorf("the backend got %s: %.80q, want %.80q", name, got.Headers[name], want)
		}
		return err
	}
}

// underscores reach a backend that takes such names; nginx and gunicorn drop them.
func underscores(e exchange, b backend, r result) error {
	if b.name == "nginx" || b.name == "gunicorn" {
		return answered(200)(e, b, r)
	}
	return header("tenant_id", "a")(e, b, r)
}
