package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Part is one cluster's part of one service.
type Part struct{ Service, Cluster string }

// Parts is what members export, and what the others may show of it. It is not safe for concurrent use.
type Parts struct {
	exported map[Part]string          // the address of what is exported
	stable   map[Part]map[string]bool // members that have seen it since it changed last
	ever     map[Part]map[string]bool // addresses that it had at some time
}

// NewParts is a fleet without exports.
func NewParts() *Parts {
	return &Parts{exported: map[Part]string{}, stable: map[Part]map[string]bool{}, ever: map[Part]map[string]bool{}}
}

// Export says that a part has this address from now on; call it before anybody can see it.
func (p *Parts) Export(part Part, address string) {
	delete(p.stable, part)
	p.exported[part] = address
	if p.ever[part] == nil {
		p.ever[part] = map[string]bool{}
	}
	p.ever[part][address] = true
}

// Withdraw says that a part is exported no longer; call it before anybody can see it.
func (p *Parts) Withdraw(part Part) {
	delete(p.stable, part)
	delete(p.exported, part)
}

// Address is the address of a part that is exported.
func (p *Parts) Address(part Part) (address string, exported bool) {
	address, exported = p.exported[part]
	return address, exported
}

// Expected is what a member must show when it is asked next, unless it changes meanwhile.
func (p *Parts) Expected(member string) map[Part]string {
	out := map[Part]string{}
	for part, by := range p.stable {
		if by[member] {
			out[part] = p.exported[part]
		}
	}
	return out
}

// Compare says what is wrong with what a member shows, addresses joined by blanks, once each. What it was expected to
// show is from before it was asked.
func (p *Parts) Compare(member string, expected, shown map[Part]string) (wrong []string) {
	for part, address := range expected {
		if p.stable[part][member] && shown[part] != address { // it has not changed meanwhile
			wrong = append(wrong, fmt.Sprintf("%s has lost %s of %s: it had %q and has %q", member, part.Service, part.Cluster, address, shown[part]))
			delete(p.stable[part], member)
		}
	}
	for part, addresses := range shown {
		for address := range strings.FieldsSeq(addresses) {
			if !p.ever[part][address] {
				wrong = append(wrong, fmt.Sprintf("%s shows %s of %s of %s, which never had it", member, address, part.Service, part.Cluster))
			}
		}
		if address, exported := p.exported[part]; exported && addresses == address {
			if p.stable[part] == nil {
				p.stable[part] = map[string]bool{}
			}
			p.stable[part][member] = true
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Text is what is exported, a line for each part.
func (p *Parts) Text() string { return Text(p.exported) }

// Text is parts and their addresses, a line for each.
func Text(parts map[Part]string) string {
	var lines []string
	for part, addresses := range maps.All(parts) {
		lines = append(lines, part.Service+" of "+part.Cluster+": "+addresses)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
