package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Event is one line of the hub's debug log that says what went to an edge or
// came from one.
type Event struct {
	At   time.Time
	What string // "pushed", "acked" or "edge connected"
	Node string
	// Type is the short name of the resources' type: assignment, route, ...
	Type string
	// Versions of the resources, by name; removals are not in it.
	Versions map[string]string
}

// ParseLine reads a line of a container's log: the kubelet's time, then the
// hub's JSON. ok is false for all other lines.
func ParseLine(line []byte) (e Event, ok bool) {
	_, text, found := bytes.Cut(line, []byte(" "))
	if !found || !(bytes.Contains(text, []byte(`"pushed"`)) || bytes.Contains(text, []byte(`"acked"`)) || bytes.Contains(text, []byte(`"edge connected"`))) {
		return Event{}, false
	}
	var entry struct {
		Time      time.Time `json:"time"`
		Msg       string    `json:"msg"`
		Node      string    `json:"node"`
		Type      string    `json:"type"`
		Resources []string  `json:"resources"`
	}
	if err := json.Unmarshal(text, &entry); err != nil || entry.Time.IsZero() {
		return Event{}, false
	}
	switch entry.Msg {
	case "pushed", "acked", "edge connected":
	default:
		return Event{}, false
	}
	e = Event{At: entry.Time, What: entry.Msg, Node: entry.Node, Type: entry.Type, Versions: make(map[string]string, len(entry.Resources))}
	for _, r := range entry.Resources {
		name, version, _ := strings.Cut(r, " ")
		e.Versions[name] = version
	}
	return e, true
}

// Log is what the hub has logged so far, all its replicas together.
type Log struct {
	mu     sync.Mutex // guards the rest
	events []Event
	grown  chan struct{} // closed when events grow
}

// NewLog is an empty Log.
func NewLog() *Log { return &Log{grown: make(chan struct{})} }

// Tail follows the log file of a replica, too, until ctx ends.
func (l *Log) Tail(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	go func() {
		defer f.Close()
		l.read(ctx, f)
	}()
	return nil
}

// read looks for new lines each millisecond. No figure depends on when a line is
// read: lines have their own times.
func (l *Log) read(ctx context.Context, f io.Reader) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	var rest []byte
	buffer := make([]byte, 1<<20)
	for {
		n, _ := f.Read(buffer) // io.EOF: not yet
		if n == 0 {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			continue
		}
		rest = l.take(append(rest, buffer[:n]...))
	}
}

// take reads whole lines and returns the rest.
func (l *Log) take(text []byte) (rest []byte) {
	var found []Event
	for {
		line, after, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			break
		}
		if e, ok := ParseLine(line); ok {
			found = append(found, e)
		}
		text = after
	}
	if len(found) > 0 {
		l.mu.Lock()
		l.events = append(l.events, found...)
		close(l.grown)
		l.grown = make(chan struct{})
		l.mu.Unlock()
	}
	return bytes.Clone(text)
}

// Mark is a position in the log: how many events it has so far.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// Since are the events after a mark.
func (l *Log) Since(mark int) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[mark:len(l.events):len(l.events)]
}

// Follow shows events after a mark, also those to come, until see is satisfied.
func (l *Log) Follow(ctx context.Context, mark int, see func(Event) bool) error {
	for {
		l.mu.Lock()
		events, grown := l.events[mark:], l.grown
		l.mu.Unlock()
		for _, e := range events {
			if see(e) {
				return nil
			}
		}
		mark += len(events)
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Quiet waits until the hub has sent nothing for a while.
func (l *Log) Quiet(ctx context.Context, still time.Duration) error {
	for {
		mark := l.Mark()
		if err := pause(ctx, still); err != nil {
			return err
		}
		if l.Mark() == mark {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Passage is one change of one resource on its way to all edges.
type Passage struct {
	Edges int
	Type  string
	Names func(name string) bool
	Began time.Time

	pushed map[string]sending              // by node: the first that left after Began
	acks   map[string]map[string]time.Time // by node and version
	acked  map[string]time.Time            // by node: the ACK of what was pushed
}

type sending struct {
	version string
	at      time.Time
}

// See adds an event and reports whether all edges have ACKed what they were
// sent first after Began. Lines of one response may stand in either order: two
// goroutines of the hub write them.
func (p *Passage) See(e Event) bool {
	if e.Type != p.Type || e.At.Before(p.Began) {
		return p.Done()
	}
	if p.pushed == nil {
		p.pushed, p.acks, p.acked = map[string]sending{}, map[string]map[string]time.Time{}, map[string]time.Time{}
	}
	for name, version := range e.Versions {
		if p.Names(name) {
			p.note(e, name+" "+version)
		}
	}
	return p.Done()
}

func (p *Passage) note(e Event, version string) {
	switch _, sent := p.pushed[e.Node]; {
	case e.What == "pushed" && !sent:
		p.pushed[e.Node] = sending{version, e.At}
	case e.What == "acked":
		if p.acks[e.Node] == nil {
			p.acks[e.Node] = map[string]time.Time{}
		}
		if _, ok := p.acks[e.Node][version]; !ok {
			p.acks[e.Node][version] = e.At
		}
	}
	if at, ok := p.acks[e.Node][p.pushed[e.Node].version]; ok {
		p.acked[e.Node] = at
	}
}

// Done reports whether all edges have ACKed.
func (p *Passage) Done() bool { return len(p.acked) == p.Edges }

// ToPush is the time from Began until the response to the last edge left.
func (p *Passage) ToPush() time.Duration {
	var last time.Duration
	for _, s := range p.pushed {
		last = max(last, s.at.Sub(p.Began))
	}
	return last
}

// ToAck is the time from Began until the last edge's ACK.
func (p *Passage) ToAck() time.Duration {
	var last time.Duration
	for _, at := range p.acked {
		last = max(last, at.Sub(p.Began))
	}
	return last
}

// PushToAck is the longest that an edge took from response to ACK.
func (p *Passage) PushToAck() time.Duration {
	var longest time.Duration
	for node, at := range p.acked {
		longest = max(longest, at.Sub(p.pushed[node].at))
	}
	return longest
}

func (p *Passage) String() string {
	return fmt.Sprintf("%s: %d pushed, %d of %d edges ACKed", p.Type, len(p.pushed), len(p.acked), p.Edges)
}

// MeanPushToAck is the mean, over all responses of a type and all edges, of the
// time from response to ACK.
func MeanPushToAck(events []Event, kind string) time.Duration {
	type at struct{ node, name, version string }
	pushed, acked := map[at]time.Time{}, map[at]time.Time{}
	for _, e := range events {
		if e.Type != kind {
			continue
		}
		into := pushed
		if e.What == "acked" {
			into = acked
		}
		for name, version := range e.Versions {
			into[at{e.Node, name, version}] = e.At
		}
	}
	var sum time.Duration
	n := 0
	for key, when := range acked {
		if left, ok := pushed[key]; ok {
			sum += when.Sub(left)
			n++
		}
	}
	return sum / time.Duration(max(n, 1))
}
