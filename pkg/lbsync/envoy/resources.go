package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Resource is one Envoy resource as an edge gets it.
type Resource struct {
	TypeURL string
	Name    string
	Version string
	Body    *anypb.Any
	// Sources are the objects that the resource was made of, each once: a Gateway (Listener), a Gateway and routes
	// (RouteConfiguration), a route (Cluster), a Secret and its Gateway. Resources may share the slice; nobody changes it.
	Sources []fleet.ObjectRef
}

// Resources are all resources of a pool's edges except load assignments.
type Resources struct {
	Listeners, Routes, Clusters, Secrets []Resource
	// Faults are the parts that Envoy would refuse. There should be none, because gateway.Build rejects them with a
	// condition. A part that Build overlooked is answered 500 or closed; log it.
	Faults []Fault
}

// Append adds other resources. It never writes to the slices of what was appended before.
func (r *Resources) Append(more Resources) {
	extend(&r.Listeners, more.Listeners)
	extend(&r.Routes, more.Routes)
	extend(&r.Clusters, more.Clusters)
	extend(&r.Secrets, more.Secrets)
	extend(&r.Faults, more.Faults)
}

func extend[T any](list *[]T, more []T) {
	if len(*list) == 0 {
		*list = slices.Clip(more) // the next append copies it
		return
	}
	*list = append(*list, more...)
}

// Fault is a part of a resource that was replaced, or a whole resource that was left out, because Envoy would refuse it.
type Fault struct {
	TypeURL string
	Name    string // of the resource
	Part    string // the route and rule, or the chain; empty for the whole resource
	Message string
}

func (f Fault) String() string {
	return fmt.Sprintf("%s %q %s: %s", f.TypeURL, f.Name, f.Part, f.Message)
}

// Translate returns the Envoy resources of a Program.
func Translate(p lbsync.Program) Resources { return new(Cache).Translate(p) }

// Translate returns the Envoy resources of a Program, or of a part of one. The Program must not be changed afterwards.
func (c *Cache) Translate(p lbsync.Program) Resources {
	t := translator{cache: c}
	for _, l := range p.Listeners {
		t.listener(l)
	}
	for _, a := range p.Assignments {
		t.add(&t.out.Clusters, a.Key, cluster(a), []fleet.ObjectRef{a.Route})
	}
	for _, s := range p.Secrets {
		t.add(&t.out.Secrets, s.Name, secret(s), []fleet.ObjectRef{gatewayRef(s.Gateway), secretRef(s.Secret.Name)})
	}
	return t.out
}

// translator collects resources.
type translator struct {
	out   Resources
	cache *Cache
}

// add validates and packs one resource, or adds a Fault.
func (t *translator) add(to *[]Resource, name string, message proto.Message, sources []fleet.ObjectRef) {
	r, err := pack(name, message)
	if err != nil {
		t.out.Faults = append(t.out.Faults, Fault{TypeURL: r.TypeURL, Name: name, Message: err.Error()})
		return
	}
	r.Sources = sources
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

// hash returns 80 bits of a content's SHA-256: short on the wire, and safe from collisions made on purpose.
func hash(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:10])
}

func marshal(message proto.Message) (*anypb.Any, error) {
	body := new(anypb.Any)
	err := anypb.MarshalFrom(body, message, deterministic)
	return body, err
}

// packed wraps a message that this package wrote itself. The only possible error is text that is not UTF-8. It gives a
// missing Any, which validate refuses in the message around it.
func packed(message proto.Message) *anypb.Any {
	body, err := marshal(message)
	if err != nil {
		return nil
	}
	return body
}

// Messages that are the same in every resource. They are packed once and validated by a test. Nobody may change them.
var (
	routerFilter       = packed(router())
	tlsInspector       = packed(&inspectorv3.TlsInspector{})
	requestIDs         = packed(uuids())
	stdoutLog          = packed(accessLog())
	usageLog           = packed(usage())
	previousHosts      = packed(&hostsv3.PreviousHostsPredicate{})
	previousPriorities = packed(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1})
	http1Upstream      = packed(protocol(model.Assignment{Protocol: model.HTTP1}))
	http2Upstream      = packed(protocol(model.Assignment{Protocol: model.H2C}))
	untrustedHeaders   = packed(earlyRemovals(false))
	trustedHeaders     = packed(earlyRemovals(true))
	enabledFilter      = packed(&routev3.FilterConfig{Config: &anypb.Any{}}) // as the chain says
	proxyProtocol      = packed(&proxyv3.ProxyProtocol{})
	rejectingProxy     = packed(&tcpv3.TcpProxy{StatPrefix: "reject", ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: missingCluster}})

	constants = map[*anypb.Any]bool{routerFilter: true, tlsInspector: true, requestIDs: true, stdoutLog: true, usageLog: true, previousHosts: true, previousPriorities: true,
		http1Upstream: true, http2Upstream: true, untrustedHeaders: true, trustedHeaders: true, enabledFilter: true, proxyProtocol: true, rejectingProxy: true}
)

// initialFetchTimeout bounds how long a listener or a cluster waits for the resources that it refers to. With Envoy's
// default of 15 s, one resource that never comes would keep all listeners of a new Envoy closed.
const initialFetchTimeout = 2 * time.Second

// adsSource says that a resource comes over the ADS stream.
func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   durationpb.New(initialFetchTimeout),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func enabled() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func number(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
