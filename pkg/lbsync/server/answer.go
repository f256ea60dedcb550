package server

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/status"
)

// verdict is what an edge's answer to one response came to.
type verdict struct {
	known  bool // the answer was to a response of this stream
	sentAt time.Time
	acked  []NameVersion
	nacked []Nack
}

// answer takes in an ACK, or a NACK with its refusal.
func (s *stream) answer(k kind, nonce string, refusal *status.Status) verdict {
	p, known := s.kinds[k].inflight[nonce]
	if !known {
		return verdict{}
	}
	delete(s.kinds[k].inflight, nonce)
	v := verdict{known: true, sentAt: p.at}
	suspects, bad := p.suspects(refusal)
	for _, i := range p.items {
		if s.kinds[k].entries[i.name] != i.entry {
			continue // the edge stopped asking for it, maybe asked anew
		}
		switch {
		case i.version == "":
			s.gone(k, i)
		case suspects[i.name]:
			i.entry.alone = true
			if i.entry.sent == i.version {
				i.entry.sent = ""
			}
			s.review(k, i.name)
		case bad[i.name]:
			v.nacked = append(v.nacked, s.refused(k, i, refusal.Message))
		case i.entry.refused.Version != i.version:
			// Otherwise it is the false ACK of what was refused before.
			s.accepted(k, i)
			v.acked = append(v.acked, NameVersion{i.name, i.version})
		}
	}
	return v
}

func (s *stream) accepted(k kind, i item) {
	i.entry.applied, i.entry.late, i.entry.alone, i.entry.refused = i.version, "", false, Nack{}
	s.review(k, i.name)
}

// refused keeps what the edge had: it stays in force.
func (s *stream) refused(k kind, i item, message string) Nack {
	i.entry.refused = Nack{TypeURL: typeURLs[k], Name: i.name, Version: i.version, Message: message}
	i.entry.alone = false
	s.refusing[ref{k, i.name}] = struct{}{}
	if i.entry.sent == i.version {
		i.entry.sent = i.entry.applied
	}
	s.review(k, i.name)
	return i.entry.refused
}

func (s *stream) gone(k kind, i item) {
	i.entry.applied, i.entry.refused = "", Nack{}
	s.review(k, i.name)
}

// suspects splits what a refusal is about: the one resource of the response, or
// those that the message names, are bad; where it names none of several, all are
// suspects, to be sent again one by one. Without a refusal there is neither.
func (p push) suspects(refusal *status.Status) (suspects, bad map[string]bool) {
	if refusal == nil {
		return nil, nil
	}
	bad, sent := map[string]bool{}, map[string]bool{}
	for _, i := range p.items {
		if i.version == "" {
			continue
		}
		sent[i.name] = true
		if names(refusal.Message, i.name) {
			bad[i.name] = true
		}
	}
	switch {
	case len(sent) == 1:
		return nil, sent
	case len(bad) == 0:
		return sent, nil
	}
	return nil, bad
}

// names says whether Envoy's message blames a resource of a batch. Seen with
// 1.40: "Error adding/updating cluster(s) a: what, b: what" and
// "Error adding/updating listener(s) a: what\nb: what\n".
func names(message, name string) bool {
	for rest, base := message, 0; ; {
		at := strings.Index(rest, name+": ")
		if at < 0 {
			return false
		}
		before := message[:base+at]
		if strings.HasSuffix(before, "(s) ") || strings.HasSuffix(before, ", ") || strings.HasSuffix(before, "\n") {
			return true
		}
		rest, base = rest[at+1:], base+at+1
	}
}
