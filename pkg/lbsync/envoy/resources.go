package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Resource is one Envoy resource as it goes to an edge.
type Resource struct {
	TypeURL string
	Name    string
	Version string
	Body    *anypb.Any
}

// Resources is everything but load assignments that the edges of a place should have.
type Resources struct {
	Listeners, Routes, ScopedRoutes, Clusters, Secrets []Resource
	// Faults are the parts that Envoy would refuse. They should not exist: gateway.Build refuses them with a
	// condition; what it overlooked is answered 500 or closed, and is to be logged.
	Faults []Fault
}

// Append adds other resources, in memory of its own or in that of the first that were appended.
func (r *Resources) Append(more Resources) {
	extend(&r.Listeners, more.Listeners)
	extend(&r.Routes, more.Routes)
	extend(&r.ScopedRoutes, more.ScopedRoutes)
	extend(&r.Clusters, more.Clusters)
	extend(&r.Secrets, more.Secrets)
	extend(&r.Faults, more.Faults)
}

func extend[T any](list *[]T, more []T) {
	if len(*list) == 0 {
		*list = slices.Clip(more) // whoever appends to it copies it
		return
	}
	*list = append(*list, more...)
}

// Fault is a part of a resource that was replaced, or a resource that was left out, because Envoy would refuse it.
type Fault struct {
	TypeURL string
	Name    string // of the resource
	Part    string // the route and rule, or the chain; empty for the whole resource
	Message string
}

func (f Fault) String() string {
	return fmt.Sprintf("%s %q %s: %s", f.TypeURL, f.Name, f.Part, f.Message)
}

// Translate gives the Envoy resources of a place.
func Translate(p lbsync.Program) Resources { return new(Memo).Translate(p) }

// Translate gives the Envoy resources of a place, or of a part of a place. The program must not be changed afterwards.
func (m *Memo) Translate(p lbsync.Program) Resources {
	t := translator{memo: m}
	for _, l := range p.Listeners {
		t.listener(l)
	}
	for _, a := range p.Assignments {
		t.add(&t.out.Clusters, a.Key, cluster(a))
	}
	for _, s := range p.Secrets {
		t.add(&t.out.Secrets, s.Name, secret(s))
	}
	return t.out
}

// translator collects the resources of one place.
type translator struct {
	out  Resources
	memo *Memo
}

// add validates and packs one resource, or notes why it cannot leave.
func (t *translator) add(to *[]Resource, name string, message proto.Message) {
	r, err := pack(name, message)
	if err != nil {
		t.out.Faults = append(t.out.Faults, Fault{TypeURL: r.TypeURL, Name: name, Message: err.Error()})
		return
	}
	*to = append(*to, r)
}

// pack validates a message and marshals it to the same bytes every time.
func pack(name string, message proto.Message) (Resource, error) {
	r := Resource{Name: name, TypeURL: "type.googleapis.com/" + string(message.ProtoReflect().Descriptor().FullName())}
	if err := validate(message); err != nil {
		return r, err
	}
	body, err := marshal(message)
	if err != nil {
		return r, err
	}
	r.Body, r.Version = body, hash(body.GetValue())
	return r, nil
}

// hash names a content by 80 bits of its SHA-256: short on the wire, and not to be guessed into a collision.
func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:10])
}

func marshal(message proto.Message) (*anypb.Any, error) {
	body := new(anypb.Any)
	err := anypb.MarshalFrom(body, message, proto.MarshalOptions{Deterministic: true})
	return body, err
}

// packed wraps a message that this package wrote itself: the only error is text that is not UTF-8, which validate
// reports for the whole (an Any that is missing is refused too).
func packed(message proto.Message) *anypb.Any {
	body, err := marshal(message)
	if err != nil {
		return nil
	}
	return body
}

// Messages that are the same in every resource: packed once, and validated by a test rather than each time. Nobody may
// change them.
var (
	routerFilter   = packed(&routerv3.Router{SuppressEnvoyHeaders: true})
	tlsInspector   = packed(&inspectorv3.TlsInspector{})
	stdoutLog      = packed(accessLog())
	previousHosts  = packed(&hostsv3.PreviousHostsPredicate{})
	http1Upstream  = packed(protocol(model.Assignment{Protocol: model.HTTP1}))
	http2Upstream  = packed(protocol(model.Assignment{Protocol: model.H2C}))
	rejectingProxy = packed(&tcpv3.TcpProxy{StatPrefix: "reject", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: nowhere}})

	constants = map[*anypb.Any]bool{routerFilter: true, tlsInspector: true, stdoutLog: true, previousHosts: true,
		http1Upstream: true, http2Upstream: true, rejectingProxy: true}
)

// fetchTimeout bounds how long a listener or a cluster waits for what it refers to. Envoy's default of 15 s would keep
// all listeners of a fresh Envoy closed for one resource that never comes.
const fetchTimeout = 2 * time.Second

// ads says that a resource comes over the stream that everything comes over.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(fetchTimeout),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func number(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
