package delta

import (
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
)

// Received is what one request changed.
type Received struct {
	// Answer says that the request ACKs or NACKs a response of this stream, which
	// was sent at SentAt.
	Answer bool
	SentAt time.Time
	Acked  []NameVersion
	// Nacked are also the NACKs of an earlier stream that a first request brings
	// back into force.
	Nacked []Nack
	// Progress says that the Stream's Progress changed.
	Progress bool
}

// Receive processes one request: an answer to a response, a change of the
// subscription, or both.
func (s *Stream) Receive(k Kind, r *discovery.DeltaDiscoveryRequest) Received {
	var received Received
	if r.ResponseNonce != "" {
		received = s.answer(k, r.ResponseNonce, r.ErrorDetail)
	}
	first := !s.kinds[k].started
	if first || len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
		s.subscribe(k, r)
		if first {
			received.Nacked = append(received.Nacked, s.nacksInForce(k)...)
		}
	}
	received.Progress = s.updateProgress() || len(received.Nacked) > 0
	return received
}

// answer processes an ACK, or a NACK with its error.
func (s *Stream) answer(k Kind, nonce string, nack *status.Status) Received {
	r, ok := s.kinds[k].inFlight[nonce]
	if !ok {
		return Received{}
	}
	delete(s.kinds[k].inFlight, nonce)
	s.kinds[k].unanswered -= r.size()
	received := Received{Answer: true, SentAt: r.sentAt}
	bad, unclear := r.blamed(nack)
	for _, i := range r.items {
		if s.kinds[k].entries[i.name] != i.entry {
			continue // the edge has unsubscribed, and maybe subscribed again
		}
		switch {
		case i.version == "":
			s.removed(k, i)
		case unclear[i.name]:
			i.entry.sendAlone = true
			if i.entry.sent == i.version {
				i.entry.sent = ""
			}
			s.reconcile(k, i.name)
		case bad[i.name]:
			received.Nacked = append(received.Nacked, s.nackedItem(k, i, nack.Message))
		case i.entry.nack.Version != i.version:
			// Otherwise it is the false ACK of what was NACKed before.
			s.acked(k, i, r.snapshot)
			received.Acked = append(received.Acked, NameVersion{i.name, i.version})
		}
	}
	return received
}

func (s *Stream) acked(k Kind, i item, snapshot uint64) {
	i.entry.applied, i.entry.appliedIn, i.entry.warmTimedOut, i.entry.sendAlone, i.entry.nack = i.version, snapshot, "", false, Nack{}
	s.reconcile(k, i.name)
}

// nackedItem notes a NACK. What the edge applied before stays in force.
func (s *Stream) nackedItem(k Kind, i item, message string) Nack {
	i.entry.nack = Nack{TypeURL: typeURLs[k], Name: i.name, Version: i.version, Message: s.shortened(message),
		Applied: i.entry.applied, AppliedIn: i.entry.appliedIn}
	i.entry.sendAlone = false
	s.nacked[resourceKey{k, i.name}] = struct{}{}
	if i.entry.sent == i.version {
		i.entry.sent = i.entry.applied
	}
	s.reconcile(k, i.name)
	return i.entry.nack
}

func (s *Stream) removed(k Kind, i item) {
	i.entry.applied, i.entry.appliedIn, i.entry.nack = "", 0, Nack{}
	s.reconcile(k, i.name)
}

// blamed splits the resources that a NACK is about. The only resource of a
// response is bad, and so are those that the message names. If it names none of
// several, it is unclear which are: they are sent again one by one.
func (r response) blamed(nack *status.Status) (bad, unclear map[string]bool) {
	if nack == nil {
		return nil, nil
	}
	bad, sent := map[string]bool{}, map[string]bool{}
	for _, i := range r.items {
		if i.version == "" {
			continue
		}
		sent[i.name] = true
		if blames(nack.Message, i.name) {
			bad[i.name] = true
		}
	}
	switch {
	case len(sent) == 1:
		return sent, nil
	case len(bad) == 0:
		return nil, sent
	}
	return bad, nil
}

// blames says whether Envoy's message is about a resource of a batch. Seen with
// 1.40: "Error adding/updating cluster(s) a: what, b: what" and
// "Error adding/updating listener(s) a: what\nb: what\n".
func blames(message, name string) bool {
	for remaining, base := message, 0; ; {
		at := strings.Index(remaining, name+": ")
		if at < 0 {
			return false
		}
		before := message[:base+at]
		if strings.HasSuffix(before, "(s) ") || strings.HasSuffix(before, ", ") || strings.HasSuffix(before, "\n") {
			return true
		}
		remaining, base = remaining[at+1:], base+at+1
	}
}

// shortened cuts a NACK's message to a length that may be kept. What is left of a
// long one still has Envoy's reason, and mostly the value that it rejects.
func (s *Stream) shortened(message string) string {
	limit := maxMessageLength
	if len(s.nacked) > maxLongMessages {
		limit = minMessageLength
	}
	if len(message) > limit {
		message = strings.Clone(strings.ToValidUTF8(message[:limit], ""))
	}
	return message
}

// Lengths of the messages of NACKs. A Stream that has maxLongMessages of them
// keeps only the beginning of further ones.
const maxMessageLength, minMessageLength, maxLongMessages = 16 << 10, 512, 16

// takeOverNacks takes over the NACKs of secrets that the same process sent on an
// earlier stream: Envoy would ACK a bad secret when it is sent again. A process
// that has nothing is a new one and starts without them. Everything else is sent
// and answered again: a node is only the label that an edge gives itself, so the
// NACKs of one edge must not count for another.
func (s *Stream) takeOverNacks(k Kind) {
	if k != secrets {
		return
	}
	sub := &s.kinds[k]
	for _, e := range sub.entries {
		if e.applied != "" {
			s.reconnected = true
			break
		}
	}
	if !s.reconnected {
		return
	}
	for key, nack := range s.pool.nacks[s.node] {
		if key.kind != k {
			continue
		}
		e := sub.entries[key.name]
		if e == nil && sub.wildcard {
			e = &entry{}
			sub.entries[key.name] = e
		}
		if e != nil && e.applied != nack.Version {
			e.nack = nack
			s.nacked[key] = struct{}{}
		}
	}
}

// currentNacks are the resources whose last answer was a NACK.
func (s *Stream) currentNacks() map[resourceKey]Nack {
	nacks := map[resourceKey]Nack{}
	for key := range s.nacked {
		if e := s.kinds[key.kind].entries[key.name]; e != nil && e.nack.Version != "" {
			nacks[key] = e.nack
		} else {
			delete(s.nacked, key)
		}
	}
	return nacks
}

// nacksInForce are the NACKs of a kind that are about what the edge should have
// now.
func (s *Stream) nacksInForce(k Kind) []Nack {
	var nacks []Nack
	for name, e := range s.kinds[k].entries {
		if want, _ := s.desired(k, name); want.version() != "" && e.nack.Version == want.version() {
			nacks = append(nacks, e.nack)
		}
	}
	slices.SortFunc(nacks, func(a, b Nack) int { return strings.Compare(a.Name, b.Name) })
	return nacks
}
