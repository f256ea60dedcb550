package reader

import (
	"context"
	"fmt"
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// forward is a port of this machine's loopback interface that reaches a port of a pod.
type forward struct {
	url  string
	stop chan struct{}
	done chan struct{} // closed when its goroutine has ended
}

func (f *forward) close() {
	close(f.stop)
	<-f.done
}

// open makes a forward over WebSocket, or over SPDY where a proxy or an older API server wants that, as kubectl does.
func (r *Reader) open(ctx context.Context, pod *corev1.Pod, port int32) (*forward, error) {
	url := r.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, r.config)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(r.config)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	dialer := portforward.NewFallbackDialerForStreaming(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	f := &forward{stop: make(chan struct{}), done: make(chan struct{})}
	opened := make(chan struct{})
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, f.stop, opened, io.Discard, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	var failed error // set before done is closed
	go func() {
		defer close(f.done)
		failed = forwarder.ForwardPorts()
	}()
	select {
	case <-opened:
	case <-f.done:
		return nil, fmt.Errorf("port-forward: %w", failed)
	case <-ctx.Done():
		f.close()
		return nil, fmt.Errorf("port-forward: %w", context.Cause(ctx))
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		f.close()
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	f.url = fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local)
	return f, nil
}
