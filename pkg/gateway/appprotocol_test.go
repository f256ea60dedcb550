package gateway

import (
	"testing"

	"crossway.dev/crossway/pkg/gateway/model"
)

// appProtocol is a name of IANA, of Kubernetes or of nobody, in any case.
func TestAppProtocols(t *testing.T) {
	for name, want := range map[string]model.BackendProtocol{
		"": model.HTTP1, "http": model.HTTP1, "HTTP": model.HTTP1, "Http": model.HTTP1, "www": model.HTTP1, "WWW-HTTP": model.HTTP1,
		"kubernetes.io/ws": model.HTTP1, "tcp": model.HTTP1, "grpc-web": model.HTTP1,
		"kubernetes.io/h2c": model.H2C, "Kubernetes.io/H2C": model.H2C, "http2": model.H2C, "HTTP2": model.H2C, "gRPC": model.H2C, "h2c": model.H2C,
		// Edges speak no TLS to backends, and what is no HTTP is not guessed.
		"https": "", "HTTPS": "", "kubernetes.io/wss": "", "tls": "", "redis": "", "example.com/http": "", "httpx": "",
	} {
		r, problem := resolvedBackend{}.withProtocol(name)
		if (problem == nil) != (want != "") || problem == nil && r.protocol != want {
			t.Errorf("%q: %q, %v; want %q", name, r.protocol, problem, want)
		}
	}
}
