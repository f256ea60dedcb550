package reconciler

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/replica"
)

const (
	// silentHold is for how long the edges of a silent replica count as they were. Edges
	// whose replica died are connected to another one within seconds, and count there; edges
	// on the other side of a split go on with what they have, and a split is mended within
	// minutes or not at all.
	silentHold = 2 * time.Minute
	// leftHold is for how long an edge counts whose stream ended. One that is moved to another
	// replica, or that lost its connection, has another stream by then: it tries again within
	// some seconds, as after a start of the hub.
	leftHold = ReconnectGrace
	// maxRecordBytes bounds the records that other replicas are told, so that there is room for
	// everything else: who has the certificate of one pool can refuse all routes, in which
	// others write what they like. Pools have equal parts of it.
	maxRecordBytes = replica.MaxBytes / 4
)

// Replicas exchanges what edges answered with the other replicas of the hub. Its methods
// may be called at any time.
type Replicas struct {
	link  replica.Link
	topic replica.Topic
	clock clock.PassiveClock

	mu      sync.Mutex // guards the rest
	changed func()
	others  map[string]*otherReplica
	told    map[string]rollout.PoolAnswers
	records map[string][]byte // told, by key
}

// otherReplica is another replica.
type otherReplica struct {
	whole  bool      // all that it has is here
	silent time.Time // since when; zero: it is heard
	pools  map[string][]byte
	lost   sets.Set[string] // pools of which it has more to say than a link takes
	// refused are its records, by key.
	refused map[string]rollout.Refusal
	answers rollout.Answers // of pools; nil: to be made anew
	errors  map[string]error
}

// NewReplicas makes Replicas that exchange over a link, before it starts.
func NewReplicas(link replica.Link, clock clock.PassiveClock) *Replicas {
	topic := link.Topic("edges")
	r := &Replicas{link: link, topic: topic, clock: clock, changed: func() {}, others: map[string]*otherReplica{}, told: map[string]rollout.PoolAnswers{}, records: map[string][]byte{}}
	topic.Subscribe(replica.Observer{
		Changed: func(name, key string, value []byte) { r.update(name, func(p *otherReplica) { p.set(key, value) }) },
		Deleted: func(name, key string) { r.update(name, func(p *otherReplica) { p.delete(key) }) },
		Unknown: func(name, key string) { r.update(name, func(p *otherReplica) { p.lose(key) }) },
		Heard:   func(name string) { r.update(name, func(p *otherReplica) { p.whole, p.silent = true, time.Time{} }) },
		Silent:  func(name string) { r.update(name, func(p *otherReplica) { p.silent = r.clock.Now() }) },
		Gone: func(name string) {
			r.mu.Lock()
			delete(r.others, name)
			r.mu.Unlock()
		},
	})
	return r
}

// onChange sets what is called, without a lock, when what others say changed.
func (r *Replicas) onChange(changed func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = changed
}

func (r *Replicas) update(name string, change func(*otherReplica)) {
	r.mu.Lock()
	change(r.other(name))
	changed := r.changed
	r.mu.Unlock()
	changed()
}

// other is what is known of another replica. mu is held.
func (r *Replicas) other(name string) *otherReplica {
	p := r.others[name]
	if p == nil {
		p = &otherReplica{pools: map[string][]byte{}, lost: sets.New[string](), refused: map[string]rollout.Refusal{}}
		r.others[name] = p
	}
	return p
}

// listed are the replicas whose pods are there. One that was never heard is silent from now on. mu is held.
func (r *Replicas) listed() sets.Set[string] {
	names := sets.New[string]()
	for _, o := range r.link.Replicas() {
		if o.Listed {
			names.Insert(o.Name)
		}
		if o.Listed && !o.Connected && r.others[o.Name] == nil {
			r.other(o.Name).silent = r.clock.Now()
		}
	}
	return names
}

func (p *otherReplica) set(key string, value []byte) {
	p.answers = nil
	if pool, ok := strings.CutPrefix(key, answersPrefix); ok {
		p.pools[pool] = value
		p.lost.Delete(pool)
		return
	}
	if f, err := refusalFrom(value); err == nil && strings.HasPrefix(key, refusedPrefix) {
		p.refused[key] = f
	}
}

func (p *otherReplica) delete(key string) {
	p.answers = nil
	pool := strings.TrimPrefix(key, answersPrefix)
	delete(p.pools, pool)
	p.lost.Delete(pool)
	delete(p.refused, key)
}

// errLost is of a pool of which a replica has more to say than a link takes.
var errLost = fmt.Errorf("it has more to say of the pool's edges than the %d KiB that replicas tell each other; they count as it said last", replica.MaxValueBytes>>10)

// lose notes that a value is not known. What edges answered last counts on: they have not
// left, and what was edited since has not been answered.
func (p *otherReplica) lose(key string) {
	if pool, ok := strings.CutPrefix(key, answersPrefix); ok {
		p.answers = nil
		p.lost.Insert(pool)
	}
}

// decoded is what it says.
func (p *otherReplica) decoded() rollout.Answers {
	if p.answers != nil {
		return p.answers
	}
	p.answers, p.errors = rollout.Answers{}, map[string]error{}
	for pool, value := range p.pools {
		answers, err := decodeAnswers(pool, value, func(key string) (rollout.Refusal, bool) { f, known := p.refused[key]; return f, known })
		if err != nil {
			p.errors[pool] = err
			continue
		}
		p.answers[pool] = answers
	}
	for pool := range p.lost {
		p.errors[pool] = errLost
	}
	return p.answers
}

// SilentReplica is another replica of which nothing is heard.
type SilentReplica struct {
	Name  string
	Since time.Time
	// Counts: its edges still count as they were.
	Counts bool
}

// Others are the other replicas whose edges count. Silent are those of which nothing is heard.
func (r *Replicas) Others() (others []rollout.Replica, silent []SilentReplica) {
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now, listed := r.clock.Now(), r.listed()
	for _, name := range slices.Sorted(maps.Keys(r.others)) {
		p := r.others[name]
		if !p.silent.IsZero() {
			counts := p.whole && now.Sub(p.silent) < silentHold
			if counts || listed.Has(name) { // else it has ended
				silent = append(silent, SilentReplica{name, p.silent, counts})
			}
			if !counts {
				continue
			}
		}
		if p.whole {
			others = append(others, rollout.Replica{Answers: p.decoded(), Silent: !p.silent.IsZero()})
		}
	}
	return others, silent
}

// Edges are the connected edges of all replicas, by pool. own are those of this one.
func (r *Replicas) Edges(own rollout.Answers) map[string][]rollout.Edge {
	others, _ := r.Others()
	pools := sets.KeySet(own)
	for _, p := range others {
		pools = pools.Union(sets.KeySet(p.Answers))
	}
	edges := map[string][]rollout.Edge{}
	for pool := range pools {
		edges[pool] = rollout.EdgesOf(pool, own, others)
	}
	return edges
}

// faults are why values of others could not be read, by replica and pool.
func (r *Replicas) faults() map[string]error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]error{}
	for name, p := range r.others {
		for pool, err := range p.errors {
			all[name+"/"+pool] = err
		}
	}
	return all
}

// Unread are the replicas of which not all can be read, by name: those of another version,
// and those that have more to say than a link takes.
func (r *Replicas) Unread() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for name, p := range r.others {
		if p.decoded(); len(p.errors) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// tell says what the edges of this replica answered.
func (r *Replicas) tell(ctx context.Context, own rollout.Answers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pool, answers := range own {
		if last, told := r.told[pool]; told && reflect.DeepEqual(last, answers) {
			continue
		}
		value, records, err := encodeAnswers(pool, answers)
		if err != nil {
			log.FromContext(ctx).Error(err, "could not tell other replicas what edges answered", "pool", pool)
			continue
		}
		r.told[pool] = answers
		r.tellRecords(pool, fitting(records, maxRecordBytes/len(own)))
		r.topic.Set(answersPrefix+pool, value)
	}
	for pool := range r.told {
		if _, still := own[pool]; !still {
			delete(r.told, pool)
			r.topic.Delete(answersPrefix + pool)
			r.tellRecords(pool, nil)
		}
	}
}

// fitting are the first records, by key, that have so many bytes together. A route whose record is
// not told counts as not refused elsewhere.
func fitting(records map[string][]byte, bytes int) map[string][]byte {
	out := map[string][]byte{}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if bytes -= len(records[key]); bytes >= 0 {
			out[key] = records[key]
		}
	}
	return out
}

// tellRecords says what edges of a pool refuse.
func (r *Replicas) tellRecords(pool string, records map[string][]byte) {
	for key, value := range records {
		if !slices.Equal(r.records[key], value) {
			r.records[key] = value
			r.topic.Set(key, value)
		}
	}
	for key := range r.records {
		if _, still := records[key]; !still && strings.HasPrefix(key, refusedPrefix+pool+"/") {
			delete(r.records, key)
			r.topic.Delete(key)
		}
	}
}

// refusalFrom is the refusal of a record.
func refusalFrom(data []byte) (rollout.Refusal, error) {
	var content record
	if err := json.Unmarshal(data, &content); err != nil {
		return rollout.Refusal{}, err
	}
	return content.refusal()
}

// hearReplicas takes in what other replicas say.
func (r *Reconciler) hearReplicas(ctx context.Context) {
	if r.options.Replicas == nil {
		return
	}
	others, silent := r.options.Replicas.Others()
	r.rollout.SetReplicas(others)
	r.silent = silent
	unread := map[string]string{}
	for of, err := range r.options.Replicas.faults() {
		if unread[of] = err.Error(); r.unread[of] != unread[of] {
			log.FromContext(ctx).Error(err, "could not read what another replica says of its edges", "replica", of)
		}
	}
	r.unread = unread
}

// tellReplicas says to other replicas what edges of this one answered. One that ends says
// nothing more: its edges are on their way to others, and count as they were until then.
func (r *Reconciler) tellReplicas(ctx context.Context, own rollout.Answers) {
	if r.options.Replicas != nil && ctx.Err() == nil {
		r.options.Replicas.tell(ctx, own)
	}
}

// answers are what the edges of this replica answered. Those whose stream has just ended
// are among them.
func (r *Reconciler) answers(edges map[string][]rollout.EdgeProgress) rollout.Answers {
	own := r.rollout.Answers(edges)
	if r.options.Replicas == nil {
		return own
	}
	now := r.options.Clock.Now()
	for pool, last := range r.own {
		answers, exists := own[pool]
		if !exists {
			continue
		}
		for _, e := range last.Edges {
			if e.Left.IsZero() {
				if slices.ContainsFunc(answers.Edges, func(o rollout.EdgeAnswers) bool { return o.Edge == e.Edge }) {
					continue
				}
				e.Left = now
			}
			if now.Sub(e.Left) < leftHold {
				e = afterwards(e, last.Gateways, answers.Gateways)
				answers.Edges = append(answers.Edges, e)
			}
		}
		own[pool] = answers
	}
	r.own = own
	return own
}

// afterwards are the answers of an edge that left. It has not seen Gateways that are served
// in another version since: it lacks them, and does not refuse them.
func afterwards(e rollout.EdgeAnswers, before, now map[fleet.ObjectName]rollout.ServedGateway) rollout.EdgeAnswers {
	unseen := sets.New[fleet.ObjectName]()
	for name, g := range now {
		if before[name].Version != g.Version {
			unseen.Insert(name)
		}
	}
	if unseen.Len() > 0 {
		e.Lacks = slices.SortedFunc(maps.Keys(unseen.Union(sets.New(e.Lacks...))), fleet.ObjectName.Compare)
		e.Refuses = slices.DeleteFunc(slices.Clone(e.Refuses), func(r rollout.RefusedGateway) bool { return unseen.Has(r.Gateway) })
	}
	return e
}

// nextCheck is when the loop looks again although nothing happens: an edge that left, or a
// silent replica, counts no more then.
func (r *Reconciler) nextCheck() time.Time {
	next := r.started.Add(ReconnectGrace)
	now := r.options.Clock.Now()
	if !next.After(now) {
		next = now.Add(time.Hour)
	}
	for _, answers := range r.own {
		for _, e := range answers.Edges {
			if at := e.Left.Add(leftHold); !e.Left.IsZero() && at.Before(next) {
				next = at
			}
		}
	}
	for _, s := range r.silent {
		if at := s.Since.Add(silentHold); at.After(now) && at.Before(next) {
			next = at
		}
	}
	return next
}
