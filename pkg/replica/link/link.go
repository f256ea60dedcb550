package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"crossway.dev/crossway/pkg/listener"
	"crossway.dev/crossway/pkg/replica"
)

// Times and bounds of a Link.
const (
	// peersInterval is how often Config.Peers is asked, which reads a cache.
	peersInterval = time.Second
	// settleTime is how long replicas that are known at the start may take to be heard.
	settleTime = 3 * time.Second
	// maxPeers is how many replicas are dialled: hubs have two or three, and during an
	// upgrade one more.
	maxPeers = 16
)

// Config is what a Link is made from.
type Config struct {
	// Name is that of this replica's pod.
	Name, Version string
	// Address is served, host:port. "": there are no others.
	Address string
	// Peers are all replicas that there may be, this one too.
	Peers func(context.Context) ([]replica.Peer, error)
	// Informers have the Secret with the certificate of replicas (registration.ReplicaSecret).
	Informers cache.Informers
	Secret    types.NamespacedName
	Log       logr.Logger
}

// Link is a replica.Link. It is a manager's Runnable on every replica.
type Link struct {
	config       Config
	certificates *certificates
	metrics      metrics
	settled      chan struct{}

	observers replica.Observers // not changed after Start
	// telling is held while what is known of others changes and observers are told of it,
	// so that these hear it in order. It is locked before mu.
	telling sync.Mutex

	mu      sync.Mutex // guards the rest
	own     *replica.Own
	said    map[string]bool // topics of which a value beyond a limit was logged
	leaving bool
	served  map[*served]struct{}
	others  map[string]*other
}

var _ replica.Link = &Link{}

// New makes a Link.
func New(config Config) *Link {
	return &Link{config: config, certificates: newCertificates(config), metrics: newMetrics(), settled: make(chan struct{}), observers: replica.Observers{},
		own: replica.NewOwn(), said: map[string]bool{}, served: map[*served]struct{}{}, others: map[string]*other{}}
}

// Name implements replica.Link.
func (l *Link) Name() string { return l.config.Name }

// Settled implements replica.Link.
func (l *Link) Settled() <-chan struct{} { return l.settled }

// NeedLeaderElection says that every replica has a Link.
func (*Link) NeedLeaderElection() bool { return false }

// Start serves and reads until ctx ends.
func (l *Link) Start(ctx context.Context) error {
	if l.config.Address == "" {
		close(l.settled)
		<-ctx.Done()
		return nil
	}
	settle := time.AfterFunc(settleTime, func() { close(l.settled) })
	if err := l.certificates.watch(ctx); err != nil {
		return err
	}
	select {
	case <-l.certificates.loaded:
	case <-ctx.Done():
		return nil
	}
	socket, err := listener.Listen(ctx, l.config.Address)
	if err != nil {
		return fmt.Errorf("serve replicas: %w", err)
	}
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer l.serve(serving, socket, end)()
	l.follow(serving, func() {
		if settle.Stop() {
			close(l.settled)
		}
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve replicas: %w", context.Cause(serving))
}

// Leave tells the others that this replica stops soon.
func (l *Link) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = true
	l.wake()
}

// wake has what changed sent. mu is held.
func (l *Link) wake() {
	for s := range l.served {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

// Topic implements replica.Link.
func (l *Link) Topic(name string) replica.Topic { return &topic{l, name} }

type topic struct {
	link *Link
	name string
}

// Set implements replica.Topic.
func (t *topic) Set(key string, value []byte) {
	l := t.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.own.Set(t.name, key, value); err != nil {
		l.metrics.refusedValues.WithLabelValues(t.name).Inc()
		if !l.said[t.name] {
			l.said[t.name] = true
			l.config.Log.Error(err, "a value is not sent to other replicas, which do not know it; further ones of its topic are only counted", "topic", t.name)
		}
	}
	l.wake()
}

// Delete implements replica.Topic.
func (t *topic) Delete(key string) {
	t.link.mu.Lock()
	defer t.link.mu.Unlock()
	t.link.own.Delete(t.name, key)
	t.link.wake()
}

// Subscribe implements replica.Topic.
func (t *topic) Subscribe(o replica.Observer) {
	t.link.observers[t.name] = append(t.link.observers[t.name], o)
}

// Replicas implements replica.Link.
func (l *Link) Replicas() []replica.Replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []replica.Replica
	for _, o := range l.others {
		out = append(out, replica.Replica{Name: o.peer.Name, Address: o.peer.Address, Version: o.version, Heard: o.heard,
			Connected: o.presence.Heard(), Listed: o.known, Leaving: o.presence.Leaving()})
	}
	slices.SortFunc(out, func(a, b replica.Replica) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// OthersServe says whether another replica is heard that does not stop.
func (l *Link) OthersServe() bool {
	return slices.ContainsFunc(l.Replicas(), func(r replica.Replica) bool { return r.Connected && !r.Leaving })
}

// Describe says for people which replicas there are.
func (l *Link) Describe() string {
	var out strings.Builder
	fmt.Fprintf(&out, "this replica: %s, version %s\n", l.config.Name, l.config.Version)
	for _, r := range l.Replicas() {
		state := "silent"
		if r.Connected {
			state = "connected"
		}
		if r.Leaving {
			state += ", leaving"
		}
		heard := "never heard"
		if !r.Heard.IsZero() {
			heard = fmt.Sprintf("heard %s ago", time.Since(r.Heard).Round(time.Millisecond))
		}
		fmt.Fprintf(&out, "%s at %s: %s, %s, version %s\n", r.Name, r.Address, state, heard, r.Version)
	}
	return out.String()
}
