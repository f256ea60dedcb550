package request

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/registration"
)

const serverName = "crossway-hub.crossway-system.svc"

// hub is the product's xDS server. Each edge is a pool of its own, so that each may have other resources.
type hub struct {
	*server.Server
	grpc   *grpc.Server
	port   int
	issuer registration.Issuer
	helm   string
}

func startHub(ctx context.Context, helm string) (*hub, error) {
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	if err != nil {
		return nil, err
	}
	h := &hub{issuer: registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, helm: helm,
		Server: server.New(server.Config{Authorize: func(registration.EdgeIdentity) error { return nil }})}
	own, err := registration.NewServerCertificate(h.issuer, []string{serverName})
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(own.Certificate, own.Key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)
	h.grpc = h.NewGRPCServer(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientCAs: roots})
	h.Register(h.grpc)
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h.port = socket.Addr().(*net.TCPAddr).Port
	go func() { _ = h.grpc.Serve(socket) }()
	return h, nil
}

// bootstrap writes the files of the chart for an edge of a pool, and its certificate.
func (h *hub) bootstrap(ctx context.Context, pool, address, dir string) error {
	root, err := install.ModuleRoot()
	if err != nil {
		return err
	}
	values := fmt.Sprintf("pool=%s,region=%s,zone=us-edge-1,hub.address=127.0.0.1,hub.port=%d", pool, region, h.port)
	out, err := exec.CommandContext(ctx, h.helm, "template", "edge", filepath.Join(root, "charts/edge"), "--set", values,
		"--show-only", "templates/bootstrap.yaml", "--kube-version", install.KubernetesVersion).Output()
	if err != nil {
		return fmt.Errorf("render charts/edge: %w", err)
	}
	var files corev1.ConfigMap
	if err := yaml.Unmarshal(out, &files); err != nil {
		return err
	}
	edge, err := registration.NewEdgeCertificate(h.issuer, registration.EdgeIdentity{Pool: pool, Region: region, Zone: "us-edge-1"}, time.Hour)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"tls.crt": edge.Certificate, "tls.key": edge.Key, "ca.crt": h.issuer.CA.Certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	places := strings.NewReplacer("/etc/crossway/edge", dir, "/etc/crossway/tls", dir, "/run/crossway", dir, "@POD_IP@", address)
	for _, name := range []string{"bootstrap.yaml", "sds-edge.yaml", "sds-hub-ca.yaml"} {
		content := files.Data[name]
		if content == "" {
			return fmt.Errorf("charts/edge renders no %s", name)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(places.Replace(content)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// serve gives a pool its resources, each after a change.
func (h *hub) serve(p lbsync.Program, pool string, change func(proto.Message)) error {
	resources := envoy.Translate(p)
	if len(resources.Faults) > 0 {
		return fmt.Errorf("faults: %v", resources.Faults)
	}
	var loads []envoy.Resource
	for _, a := range p.Assignments {
		r, err := loadAssignment(a)
		if err != nil {
			return err
		}
		loads = append(loads, r)
	}
	var problem error
	changed := func(all []envoy.Resource) (out []server.Resource) {
		for _, r := range all {
			if change != nil {
				message, err := r.Body.UnmarshalNew()
				if err == nil {
					change(message)
					r.Body, err = anypb.New(message)
				}
				problem = errors.Join(problem, err)
			}
			out = append(out, server.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
		}
		return out
	}
	snapshot := server.Snapshot{Generation: 1, Clusters: changed(resources.Clusters), Secrets: changed(resources.Secrets),
		Listeners: changed(resources.Listeners), Routes: changed(resources.Routes)}
	h.UpdateLoadAssignments(pool, changed(loads), nil)
	h.SetResources(pool, snapshot)
	return problem
}
