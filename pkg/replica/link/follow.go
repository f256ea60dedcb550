package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"crossway.dev/crossway/pkg/replica"
)

const (
	// dialTimeout is how long a replica may take until it sends its first Frame.
	dialTimeout = time.Second
	// redialInterval is how often a replica that does not answer is dialled.
	redialInterval = 500 * time.Millisecond
)

// other is another replica. The Link's mu guards it.
type other struct {
	peer     replica.Peer
	presence replica.Presence
	mirror   *replica.Mirror
	version  string
	heard    time.Time
	// known: Config.Peers has it.
	known bool
	// stop ends reading it. Nil: it is not read.
	stop context.CancelFunc
	// present is the connection that it is read from.
	present *connection
}

// connection is one to another replica.
type connection struct {
	other *other
	cut   context.CancelFunc
	begun bool // a Frame has come
}

// follow reads all other replicas until ctx ends. settled is called once each of those
// that are known at the start is heard.
func (l *Link) follow(ctx context.Context, settled func()) {
	ticks, peers := time.NewTicker(replica.Tick), time.NewTicker(peersInterval)
	defer ticks.Stop()
	defer peers.Stop()
	asked := l.readPeers(ctx)
	for {
		if asked && l.allHeard() {
			settled()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			l.tick()
		case <-peers.C:
			asked = l.readPeers(ctx) || asked
		}
	}
}

func (l *Link) allHeard() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.others {
		if o.known && !o.presence.Heard() {
			return false
		}
	}
	return true
}

// readPeers dials replicas that are new or have another address, and no longer those that
// are not listed. It returns false if the list is not known.
func (l *Link) readPeers(ctx context.Context) bool {
	peers, err := l.config.Peers(ctx)
	if err != nil {
		l.config.Log.V(1).Info("the hub's replicas are not known", "reason", err.Error())
		return false
	}
	slices.SortFunc(peers, func(a, b replica.Peer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address))
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	listed := map[string]bool{l.config.Name: true}
	for _, p := range peers {
		if listed[p.Name] || len(listed) > maxPeers {
			continue
		}
		listed[p.Name] = true
		l.read(ctx, p)
	}
	for name, o := range l.others {
		if listed[name] {
			continue
		}
		if o.known = false; o.stop != nil && !o.presence.Heard() {
			o.stop() // one that is heard is read until it is silent
			o.stop = nil
		}
		if o.version == "" {
			delete(l.others, name)
		}
	}
	return true
}

// read has a goroutine read a replica. mu is held.
func (l *Link) read(ctx context.Context, p replica.Peer) {
	o := l.others[p.Name]
	if o == nil {
		o = &other{mirror: replica.NewMirror()}
		l.others[p.Name] = o
	}
	o.known = true
	if o.stop != nil && o.peer == p {
		return
	}
	if o.stop != nil {
		o.stop()
	}
	o.peer = p
	reading, stop := context.WithCancel(ctx)
	o.stop = stop
	go l.keepReading(reading, o, p)
}

// tick counts for all others.
func (l *Link) tick() {
	l.telling.Lock()
	defer l.telling.Unlock()
	for name, o := range l.known() {
		l.mu.Lock()
		change := o.presence.Tick()
		var deleted []replica.Update
		switch change {
		case replica.NowSilent:
			o.present.cut() // what comes late is not whole
		case replica.NowGone:
			deleted, o.version = o.mirror.Clear(), ""
			if !o.known {
				delete(l.others, name)
			}
		case replica.NoChange, replica.NowHeard, replica.NowLeaving:
		}
		l.mu.Unlock()
		l.tell(name, deleted, change)
	}
}

func (l *Link) known() map[string]*other {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.others)
}

// tell calls the observers. telling is held.
func (l *Link) tell(name string, updates []replica.Update, changes ...replica.Change) {
	l.observers.Update(name, updates)
	for _, change := range changes {
		switch change {
		case replica.NowHeard:
			l.config.Log.Info("another replica is heard", "replica", name)
		case replica.NowSilent:
			l.metrics.silences.Inc()
			l.config.Log.Info("another replica is silent; what it said last is kept", "replica", name)
		case replica.NowLeaving, replica.NowGone, replica.NoChange:
		}
		l.observers.Change(name, change)
	}
}

// keepReading reads a replica until ctx ends. After a connection ended it is dialled at
// once, and again; then it is silent. Twice, since the first may meet a replica that has
// just read a new certificate.
func (l *Link) keepReading(ctx context.Context, o *other, p replica.Peer) {
	for failures := 0; ctx.Err() == nil; {
		begin := time.Now()
		heard, err := l.readOnce(ctx, o, p)
		if ctx.Err() != nil {
			return
		}
		l.config.Log.V(1).Info("no connection to another replica", "replica", p.Name, "address", p.Address, "reason", err.Error())
		wait := redialInterval
		switch failures++; {
		case heard && time.Since(begin) > redialInterval:
			failures, wait = 0, 0
		case heard:
			failures = 0
		case failures == 1:
			wait = replica.Tick
		default:
			l.refused(ctx, o, p.Name)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// refused: a replica was dialled in vain, twice. ctx is that of who reads it: one that was
// stopped knows nothing of the address at which the replica is by now.
func (l *Link) refused(ctx context.Context, o *other, name string) {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.mu.Lock()
	change := replica.NoChange
	if ctx.Err() == nil { // which changes while mu is held
		change = o.presence.Refused()
	}
	l.mu.Unlock()
	l.tell(name, nil, change)
}

// errOther is of an address at which another replica is now.
var errOther = errors.New("another replica answers at this address")

// readOnce dials a replica and reads it until the connection ends. heard: it said something.
func (l *Link) readOnce(ctx context.Context, o *other, p replica.Peer) (heard bool, err error) {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	from := &connection{other: o, cut: cut}
	tls := l.certificates.current.Load()
	conn, err := grpc.NewClient("passthrough:///"+p.Address, grpc.WithTransportCredentials(tls.client), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialTimeout}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(maxFrame)))
	if err != nil {
		return false, fmt.Errorf("dial replica %s: %w", p.Name, err)
	}
	defer func() { _ = conn.Close() }()
	late := time.AfterFunc(dialTimeout, cut)
	defer late.Stop()
	stop := context.AfterFunc(tls.ctx, cut) // the certificate is another one now
	defer stop()

	stream, err := conn.NewStream(ctx, &followStream, followMethod)
	if err != nil {
		return false, err
	}
	if err := errors.Join(stream.SendMsg(&hello{Name: l.config.Name, Version: l.config.Version}), stream.CloseSend()); err != nil {
		return false, err
	}
	for {
		var frame replica.Frame
		if err := stream.RecvMsg(&frame); err != nil {
			return heard, err
		}
		if frame.Name != p.Name {
			return false, fmt.Errorf("%w: %.100q", errOther, frame.Name)
		}
		late.Stop()
		if err := l.take(ctx, from, frame); err != nil {
			return false, err
		}
		heard = true
	}
}

// take takes a Frame of a replica.
func (l *Link) take(ctx context.Context, from *connection, frame replica.Frame) error {
	for _, u := range frame.Updates {
		l.metrics.received.WithLabelValues(l.topicLabel(u.Topic)).Add(float64(len(u.Key) + len(u.Value)))
	}
	l.telling.Lock()
	defer l.telling.Unlock()
	updates, changes, err := l.apply(ctx, from, frame)
	l.tell(frame.Name, updates, changes...)
	return err
}

// apply returns what a Frame changes.
func (l *Link) apply(ctx context.Context, from *connection, frame replica.Frame) ([]replica.Update, []replica.Change, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := from.other
	if ctx.Err() != nil || from.begun && o.present != from {
		return nil, nil, errors.New("the replica is not read on this connection any more")
	}
	if !from.begun {
		from.begun, o.present = true, from
		o.mirror.Begin()
	}
	o.version, o.heard = cmp.Or(frame.Version, "unknown"), time.Now()
	updates, err := o.mirror.Apply(frame, l.observers.Knows)
	if err != nil {
		return updates, nil, err
	}
	return updates, o.presence.Frame(frame), nil
}

// topicLabel bounds the labels that another replica can make.
func (l *Link) topicLabel(topic string) string {
	if l.observers.Knows(topic) {
		return topic
	}
	return "unknown"
}
