package gossip

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"crossway.dev/crossway/pkg/membership"
)

// Limits of streams of Beats.
const (
	maxBeat, maxAnswer = 64 << 10, 4 << 20
	// beatRate is how many Beats a second an agent may send: one, and one more for each
	// node of which its opinion changes.
	beatRate, beatBurst = 20, 100
	// answerTime is how long an agent waits for an answer before it dials another replica,
	// and the hub for a Beat.
	answerTime = 5 * time.Second
	// rosterTime is how often an agent gets a changed roster, at most: it is the whole.
	rosterTime = 2 * time.Second
	// completeTime is how long a replica has to run before its roster has everybody.
	completeTime = time.Minute
	// minRedial and maxRedial bound how long an agent waits before it dials the hub again.
	// Together with the dial the first ones are shorter than membership.Doubt.
	minRedial, maxRedial = 200 * time.Millisecond, 10 * time.Second
	// maxAhead is how far ahead of the hub's clock an epoch may be. So there is always a
	// later one: who once had a member's credential does not silence its agent by the last.
	maxAhead = 365 * 24 * time.Hour
)

// answer is what the hub says to an agent.
type answer struct {
	// Epoch is that of the agent's newest Beat that the hub has, or one more if the last one
	// was older. One above the agent's own is of an earlier start, when its clock was ahead,
	// or of somebody else: it begins above that.
	Epoch uint64 `json:"epoch"`
	// Roster is whom the ring takes in, maybe nobody; nil: as before. Without Complete others
	// may be missing, because the replica has just started.
	Roster   []Peer `json:"roster,omitzero"`
	Complete bool   `json:"complete,omitempty"`
	// Barred, with a Roster, are those who are let in no more.
	Barred []membership.Name `json:"barred,omitempty"`
	// Try are the nodes that the hub wants to know about.
	Try []membership.Name `json:"try,omitempty"`
}

func writeFrame(w io.Writer, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...))
	return err
}

// speak sends Beats to the hub until ctx ends, and says at last that the node leaves.
func (n *Node) speak(ctx context.Context) {
	wait := minRedial
	for turn := 0; ctx.Err() == nil; turn++ {
		hubs := n.config.Hub()
		if len(hubs) > 0 {
			began := time.Now()
			err := n.speakTo(ctx, hubs[turn%len(hubs)])
			if ctx.Err() != nil {
				return
			}
			n.config.Log.V(1).Info("no connection for Beats with the hub", "hub", hubs[turn%len(hubs)], "error", fmt.Sprint(err))
			if time.Since(began) > answerTime {
				wait = minRedial
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
			wait = min(2*wait, maxRedial)
		}
	}
}

// speakTo sends Beats to one replica until it answers no more.
func (n *Node) speakTo(ctx context.Context, hub string) error {
	limited, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := n.peers.dial(limited, Peer{Address: hub}, forBeats)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // it may be closed already
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		defer c.Close() //nolint:errcheck // it may be closed already
		n.listen(c)
	}()
	beat := time.NewTicker(membership.Interval)
	defer beat.Stop()
	for {
		leaving := ctx.Err() != nil
		if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if err := writeFrame(c, n.beat(leaving)); err != nil || leaving {
			return err
		}
		select {
		case <-ctx.Done():
		case <-c.done:
			return errors.New("the connection ended")
		case <-beat.C:
		case <-n.kick:
		}
	}
}

// listen obeys the hub's answers.
func (n *Node) listen(c *connection) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
			return
		}
		b, err := readFrame(c, 4, maxAnswer)
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal(b, &a); err != nil {
			n.config.Log.Info("could not read what the hub says", "error", err.Error())
			return
		}
		n.obey(a)
	}
}

// obey takes over what the hub says.
func (n *Node) obey(a answer) {
	n.mu.Lock()
	now := time.Now()
	if a.Epoch > n.own.Epoch {
		n.own.Epoch, n.own.Seq = a.Epoch+1, 0
	}
	if a.Roster != nil {
		n.version++
		if a.Complete {
			clear(n.roster)
		}
		for _, p := range a.Roster {
			n.roster[p.Name] = p.Address
		}
		for _, name := range a.Barred {
			delete(n.roster, name)
		}
	}
	for _, name := range a.Try {
		n.want(name, now)
	}
	n.mu.Unlock()
	if a.Roster != nil {
		n.peers.cut()
	}
}

// beat is the node's next Beat.
func (n *Node) beat(leaving bool) membership.Beat {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.own.Seq++
	n.own.Leaving = leaving
	n.own.Opinions = n.opinions(time.Now())
	return n.own
}

// hear serves an agent's stream of Beats, on a replica of the hub.
func (n *Node) hear(c *connection) {
	wake := make(chan struct{}, 1)
	var older atomic.Bool
	n.mu.Lock()
	n.wake[c.peer] = wake
	n.mu.Unlock()
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		defer c.Close() //nolint:errcheck // it may be closed already
		n.answer(c, wake, &older)
	}()
	limit := n.packets.limit(sender{c.peer, forBeats}, beatRate, beatBurst)
	for {
		if err := n.hearOne(c, limit, &older); err != nil {
			n.config.Log.V(1).Info("the connection for Beats ended", "node", c.peer, "error", err.Error())
			break
		}
		poke(wake)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wake[c.peer] == wake {
		delete(n.wake, c.peer)
	}
}

var errTooFast = errors.New("too many Beats")

// hearOne takes one Beat. older says whether the node has a newer one.
func (n *Node) hearOne(c *connection, limit *rate.Limiter, older *atomic.Bool) error {
	if err := c.SetReadDeadline(time.Now().Add(2 * answerTime)); err != nil {
		return err
	}
	text, err := readFrame(c, 4, maxBeat)
	if err != nil {
		return err
	}
	var b membership.Beat
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	if b.Node != c.peer {
		n.metrics.refused.Add("another name")
		return fmt.Errorf("%s sends a Beat of %.80q", c.peer, b.Node)
	}
	if err := b.Check(); err != nil {
		n.metrics.refused.Add("malformed")
		return err
	}
	if b.Epoch > uint64(time.Now().Add(maxAhead).UnixNano()) {
		n.metrics.refused.Add("malformed")
		return fmt.Errorf("%s sends a Beat of an epoch that is years ahead", c.peer)
	}
	if !limit.Allow() {
		n.metrics.refused.Add("rate")
		return errTooFast
	}
	n.metrics.beats.Add(1)
	n.mu.Lock()
	isNews := n.table.Hear(membership.Sighting{Beat: b, At: time.Now()})
	newest := n.table[b.Node].Beat
	older.Store(newest.Epoch > b.Epoch || newest.Epoch == b.Epoch && newest.Seq > b.Seq)
	n.mu.Unlock()
	if isNews && n.config.Heard != nil {
		n.config.Heard(b)
	}
	return nil
}

// answer says to an agent what it needs to know, after each Beat and when there is a
// question.
func (n *Node) answer(c *connection, wake chan struct{}, older *atomic.Bool) {
	var version uint64
	var told time.Time
	for {
		select {
		case <-c.done:
			return
		case <-wake:
		}
		n.mu.Lock()
		now := time.Now()
		a := answer{Epoch: n.table[c.peer].Beat.Epoch, Try: slices.Clone(n.ask[c.peer]), Complete: now.Sub(n.started) > completeTime}
		if older.Load() {
			a.Epoch++
		}
		if version != n.version && now.Sub(told) > rosterTime {
			version, told = n.version, now
			a.Roster, a.Barred = n.rosterList(), slices.Sorted(maps.Keys(n.barred))
		}
		n.mu.Unlock()
		if err := c.SetWriteDeadline(now.Add(writeTime)); err != nil {
			return
		}
		if err := writeFrame(c, a); err != nil {
			return
		}
	}
}

// rosterList is the roster in the order of names. n.mu is held.
func (n *Node) rosterList() []Peer {
	list := make([]Peer, 0, len(n.roster))
	for name, address := range n.roster {
		list = append(list, Peer{name, address})
	}
	slices.SortFunc(list, func(a, b Peer) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return list
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
