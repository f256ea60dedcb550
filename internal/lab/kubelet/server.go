package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"crossway.dev/crossway/internal/lab/network"
)

// How long a stream may idle, and may take to open; a kubelet's defaults.
const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// serve listens in the node's namespace for the API server, which asks for
// logs, exec and port-forward. It takes any client: only the lab reaches it.
func (k *Kubelet) serve() (*http.Server, error) {
	l, err := network.Listen(k.Network.NS, "tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLogs)
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", k.serveExec)
	mux.HandleFunc("/portForward/{namespace}/{pod}", k.servePortForward)
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{k.Certificate}, NextProtos: []string{"http/1.1"}}}
	go func() {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			k.Log.Error("serve", "node", k.Name, "error", err)
		}
	}()
	return server, nil
}

// container is the one that a request's path names, or nil.
func (k *Kubelet) container(r *http.Request) *container {
	w := k.find(r.PathValue("namespace"), r.PathValue("pod"))
	if w == nil {
		return nil
	}
	for _, c := range w.containers() {
		if c.spec.Name == r.PathValue("container") {
			return c
		}
	}
	return nil
}

func (k *Kubelet) serveExec(w http.ResponseWriter, r *http.Request) {
	c := k.container(r)
	if c == nil {
		http.Error(w, "no such container on this node", http.StatusNotFound)
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{c}, c.w.name, string(c.w.uid), c.spec.Name, r.URL.Query()["command"], options,
		streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
}

// executor runs a command for ServeExec. There is no terminal: with a tty
// asked for, the command gets plain pipes.
type executor struct{ c *container }

func (e executor) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser,
	_ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	p := e.c.current()
	if p == nil {
		return errors.New("the container is not running")
	}
	x := execution{args: cmd, in: in}
	if out != nil { // a nil io.WriteCloser must not become a non-nil io.Writer
		x.out, x.errOut = out, out
	}
	if errOut != nil {
		x.errOut = errOut
	}
	err := guard(func() error { return e.c.exec(ctx, p, x) })
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Err: err, Code: exitCode(err)}
	}
	return err
}

func (k *Kubelet) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod := k.find(r.PathValue("namespace"), r.PathValue("pod"))
	if pod == nil {
		http.Error(w, "no such pod on this node", http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forwarder{pod}, pod.name, string(pod.uid), options, streamIdle, streamCreation, portforward.SupportedProtocols)
}

// forwarder connects to a port on the pod's own loopback interface.
type forwarder struct{ w *worker }

func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return guard(func() error { return f.forward(ctx, port, stream) })
}

func (f forwarder) forward(ctx context.Context, port int32, stream io.ReadWriteCloser) error {
	conn, err := network.Dial(ctx, f.w.ns(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(conn, stream) }()
	_, err = io.Copy(stream, conn)
	return err
}
