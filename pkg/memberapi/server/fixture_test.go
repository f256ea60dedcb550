package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/memberapi"
	"crossway.dev/crossway/pkg/registration"
)

// fixture is a server without informers: tests say what changed, and call pass.
type fixture struct {
	*Server
	testkit.T
	address string
	stop    context.CancelFunc
	// transport makes requests; nil: each is made on a connection of its own.
	transport *http.Transport
}

// tokens are a test's credentials: a token, or what follows its last dot, is the user. That of a ServiceAccount has dots itself.
var tokens = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !strings.HasPrefix(name, "system:serviceaccount:") {
		name = name[strings.LastIndex(name, ".")+1:]
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, ok, nil
})

func newFixture(t testing.TB) *fixture { return newFixtureWith(t, Config{}) }

func newFixtureWith(t testing.TB, config Config) *fixture {
	t.Helper()
	f := &fixture{Server: New(config), T: testkit.T{TB: t}}
	f.serve()
	return f
}

// serve starts to listen, at the same address as before.
func (f *fixture) serve() {
	f.TB.Helper()
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	f.Must(err)
	pair, err := registration.NewServerCertificate(registration.Issuer{CA: ca, Now: time.Now(), Random: rand.Reader}, []string{"127.0.0.1"})
	f.Must(err)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	f.Must(err)
	if f.address == "" {
		f.address = "127.0.0.1:0"
	}
	ctx, stop := context.WithCancel(f.TB.Context())
	socket, err := listener.Listen(ctx, f.address)
	f.Must(err)
	f.address = socket.Addr().String()
	l := NewListener(ListenerConfig{Server: f.Server, Authenticator: tokens,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.serve(ctx, socket); err != nil {
			f.TB.Error(err)
		}
	}()
	f.stop = func() { stop(); <-done }
	f.TB.Cleanup(f.stop)
}

// config is how a member's agent reaches the API.
func (f *fixture) config(cluster string) *rest.Config {
	return &rest.Config{Host: "https://" + f.address, BearerToken: userOf(cluster),
		TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}

// member sets a MemberCluster that exports and imports namespaces.
func (f *fixture) member(name string, namespaces ...v1alpha1.NamespacePattern) {
	f.inbox.Add(func(p *pending) { p.clusters[name] = f.memberObject(name, namespaces...) })
}

func (*fixture) memberObject(name string, namespaces ...v1alpha1.NamespacePattern) *v1alpha1.MemberCluster {
	return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us", EndpointCIDRs: []string{cidrOf(name)},
			Exports: v1alpha1.MemberExportRules{Namespaces: namespaces}},
		Status: v1alpha1.MemberClusterStatus{Credential: &v1alpha1.MemberCredential{ID: testkit.CredentialID, Kind: v1alpha1.CredentialCertificate}}}
}

// cidrOf is the range of member a: 10.97.0.0/16.
func cidrOf(cluster string) string { return fmt.Sprintf("10.%d.0.0/16", cluster[0]) }

// export merges a service that some members export.
func (f *fixture) export(namespace, name string, clusters ...string) {
	f.Merged(map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{{Namespace: namespace, Name: name}: specOf(namespace, name, clusters...)})
}

func specOf(namespace, name string, clusters ...string) *v1alpha1.FleetServiceSpec {
	spec := &v1alpha1.FleetServiceSpec{Service: v1alpha1.ServiceReference{Namespace: namespace, Name: name}}
	spec.Type = v1alpha1.ClusterSetIP
	spec.Ports = []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}
	for _, c := range clusters {
		spec.Clusters = append(spec.Clusters, v1alpha1.ExportingCluster{Name: c})
	}
	return spec
}

func (f *fixture) withdraw(namespace, name string) {
	f.Merged(map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{{Namespace: namespace, Name: name}: nil})
}

// push sets a slice of a member.
func (f *fixture) push(cluster, namespace, service string, addresses ...string) {
	slice := sliceOf(cluster, namespace, service, addresses...)
	f.inbox.Add(func(p *pending) {
		p.slices[memberapi.SliceKey{Namespace: slice.Namespace, Name: slice.Name}] = slice
	})
}

func (f *fixture) unpush(cluster, namespace, service string) {
	slice := sliceOf(cluster, namespace, service)
	f.inbox.Add(func(p *pending) { p.slices[memberapi.SliceKey{Namespace: slice.Namespace, Name: slice.Name}] = nil })
}

func sliceOf(cluster, namespace, service string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace(cluster), Name: namespace + "-" + service,
			Labels: map[string]string{v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: namespace}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(int32(8080))}},
	}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	return s
}
