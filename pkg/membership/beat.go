package membership

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Limits of a Beat that came from another node.
const (
	// MaxOpinions is how many nodes a node has an opinion of, at most: it is asked about
	// a few, and in a split it cannot reach many.
	MaxOpinions = 256
	// maxAge: an older opinion says nothing about now.
	maxAge = time.Hour
)

// Beat is what a node says of itself, and of others what it found itself. It is the
// full state each time, so a lost one is harmless.
type Beat struct {
	Node Name `json:"node"`
	// Epoch grows with each start of the node, and Seq with each Beat. They order the
	// Beats of one node and are compared with nothing else.
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// Address is where others can dial the node, as "ip:port". Empty: nobody can.
	Address string `json:"address,omitempty"`
	// Leaving: the node stops, and this is its last word.
	Leaving bool `json:"leaving,omitempty"`
	// Opinions are sorted by name; there is at most one of each node.
	Opinions []Opinion `json:"opinions,omitempty"`
}

// Opinion is what a node found when it tried to reach another one, under that one's own
// certificate. Who never reached a node before has no opinion of not reaching it:
// nothing may lead from here to there.
type Opinion struct {
	Of      Name `json:"of"`
	Reached bool `json:"reached,omitempty"`
	// Age is how long before the Beat that was. It is a length of time, so it needs no
	// clock that is right.
	Age time.Duration `json:"age"`
}

// Check returns what is wrong with a Beat that came from another node.
func (b Beat) Check() error {
	if err := b.Node.Check(); err != nil {
		return err
	}
	if b.Address != "" {
		if address, err := ParseAddress(b.Address); err != nil || address != b.Address {
			return fmt.Errorf("address %.64q of %s is not ip:port in its only form", b.Address, b.Node)
		}
	}
	if len(b.Opinions) > MaxOpinions {
		return fmt.Errorf("%s has opinions of %d nodes, more than %d", b.Node, len(b.Opinions), MaxOpinions)
	}
	for i, o := range b.Opinions {
		switch {
		case o.Of.Check() != nil:
			return o.Of.Check()
		case o.Of == b.Node:
			return fmt.Errorf("%s has an opinion of itself", b.Node)
		case o.Age < 0 || o.Age > maxAge:
			return fmt.Errorf("the opinion of %s about %s is %s old", b.Node, o.Of, o.Age)
		case i > 0 && b.Opinions[i-1].Of >= o.Of:
			return errors.New("opinions are not sorted by name, or two are of one node")
		}
	}
	return nil
}

// ParseAddress returns the one form of an address "ip:port", so that two that are equal
// are equal as text.
func ParseAddress(text string) (string, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return "", err
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()).String(), nil
}

// compare orders Beats of one node: the newer is greater. Two of one number differ
// only if the node lies or runs twice; then their content decides.
func (b Beat) compare(other Beat) int {
	return cmp.Or(
		cmp.Compare(b.Epoch, other.Epoch),
		cmp.Compare(b.Seq, other.Seq),
		strings.Compare(b.Address, other.Address),
		compareBool(b.Leaving, other.Leaving),
		slices.CompareFunc(b.Opinions, other.Opinions, func(a, b Opinion) int {
			return cmp.Or(strings.Compare(string(a.Of), string(b.Of)), compareBool(a.Reached, b.Reached), cmp.Compare(a.Age, b.Age))
		}))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
