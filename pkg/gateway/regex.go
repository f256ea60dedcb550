package gateway

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"crossway.dev/crossway/pkg/condition"
)

// regex is what a regular expression costs an edge at most. RE2 turns it into a
// program, and the program, while it reads, into a DFA whose states it keeps. A
// program with many states is read step by step instead, which takes time in
// proportion to the program for each byte.
type regex struct {
	steps int           // upper estimate of RE2's program size
	bytes int           // program and states
	time  time.Duration // of one comparison, with a text as long as a request may be

	program *syntax.Prog
}

const (
	// MaxRegexSteps is the largest program that edges accept
	// (re2.max_program_size.error_level in their bootstrap).
	MaxRegexSteps = 3000
	// maxText is the size of a request's headers, with its path and query
	// (max_request_headers_kb in lbsync/envoy).
	maxText = 32 << 10
	// regexBytes and stepBytes are the memory of a program without states, and
	// maxStateBytes where RE2 stops to keep states (8 MiB for all, of which a third
	// is left to the program, and half of the rest to matches of whole texts).
	regexBytes    = 2000
	stepBytes     = 48
	maxStateBytes = 3_500_000
	// Times were measured at 2 GHz and rounded up.
	timePerRegex  = 300 * time.Nanosecond
	timePerByte   = 2 * time.Nanosecond   // with a state for it
	timePerStep   = 10 * time.Nanosecond  // to make a state
	timePerRead   = 500 * time.Nanosecond // of a byte, once there are too many states,
	timePerThread = 4 * time.Nanosecond   // and of each step for that byte
)

// regexes are the regular expressions of one route.
type regexes struct {
	costs map[string]regex // by pattern
	steps int              // of the largest one since it was set to 0
	work  int              // of statesOf for all of them
}

// problem says why Envoy would reject a pattern, or "". It notes what the pattern
// costs.
func (x *regexes) problem(pattern string) string {
	cost, found := x.costs[pattern]
	if !found {
		var problem string
		if cost, problem = x.regexOf(pattern); problem != "" {
			return problem
		}
		if x.costs == nil {
			x.costs = map[string]regex{}
		}
		x.costs[pattern] = cost
	}
	x.steps = max(x.steps, cost.steps)
	return ""
}

// wideEscape finds escapes of characters beyond Latin-1. Envoy's RE2 reads patterns
// and texts as Latin-1 and refuses them.
var wideEscape = regexp.MustCompile(`\\x\{0*[0-9A-Fa-f]{3,}\}|\\[4-7][0-7][0-7]`)

// unicodeClass finds Unicode classes, and categories are those that all versions of
// RE2 know. Go knows more: scripts of newer versions of Unicode, and long names.
var (
	unicodeClass = regexp.MustCompile(`\\[pP](?:\{[^}]*\}?|.)`)
	category     = regexp.MustCompile(`^\\[pP](?:[LMNPSZ]|\{\^?(?:L[ulmto]?|M[nce]?|N[dlo]?|P[cdsefio]?|S[mcko]?|Z[slp]?|C[cf])\})$`)
)

// unknownClass is the first Unicode class of a pattern that RE2 may not know, or "".
func unknownClass(pattern string) string {
	for _, class := range unicodeClass.FindAllString(pattern, -1) {
		if !category.MatchString(class) {
			return class
		}
	}
	return ""
}

// lastByte is the last character of Latin-1: each is a byte.
const lastByte = 0xff

// regexOf is what a pattern costs, or why Envoy would reject it. Go's syntax is
// RE2's without \C.
func (x *regexes) regexOf(pattern string) (regex, string) {
	if pattern == "" {
		return regex{}, "the regular expression is empty"
	}
	if strings.ContainsFunc(pattern, func(r rune) bool { return r >= utf8.RuneSelf }) || wideEscape.MatchString(pattern) {
		return regex{}, fmt.Sprintf("the regular expression %q has characters beyond ASCII, which edges compare byte by byte; a path has them as %%XX", shortened(pattern))
	}
	if class := unknownClass(pattern); class != "" {
		return regex{}, fmt.Sprintf("the regular expression %q has a class %s that edges do not know; use a category of one or two letters, like \\pL or \\p{Lu}", shortened(pattern), shortened(class))
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return regex{}, fmt.Sprintf("the regular expression %q is not valid RE2: %v", shortened(pattern), err)
	}
	if repeatsNothing(parsed) {
		return regex{}, fmt.Sprintf("the regular expression %q repeats a part 0 times; remove the part", shortened(pattern))
	}
	if size := unrolled(parsed); size > MaxRegexSteps { // before it is unrolled
		return regex{}, tooLarge(pattern, size)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return regex{}, fmt.Sprintf("the regular expression %q is not valid RE2: %v", shortened(pattern), err)
	}
	cost := regex{steps: programSize(program), program: program}
	if cost.steps > MaxRegexSteps {
		return regex{}, tooLarge(pattern, cost.steps)
	}
	x.add(&cost, program, longest(parsed))
	return cost, ""
}

func tooLarge(pattern string, steps int) string {
	return fmt.Sprintf("the regular expression %q is too large (about %d steps, at most %d); repeat less, or use fewer classes", shortened(pattern), steps, MaxRegexSteps)
}

// unrolled is a lower bound of the steps of a pattern with its repetitions written
// out.
func unrolled(re *syntax.Regexp) int {
	size := 0
	switch re.Op {
	case syntax.OpLiteral:
		size = len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		size = 1
	}
	for _, sub := range re.Sub {
		size += unrolled(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Min, re.Max)
	}
	return min(size, 1<<30)
}

// repeatsNothing says whether a part is repeated {0} times. RE2 counts such parts
// otherwise when it bounds nested repetitions.
func repeatsNothing(re *syntax.Regexp) bool {
	return re.Op == syntax.OpRepeat && re.Max == 0 || slices.ContainsFunc(re.Sub, repeatsNothing)
}

// programSize is an upper estimate of RE2's program size: it was measured at up to
// 2.5 steps for one of Go's, and one more for each range of a class.
func programSize(program *syntax.Prog) int {
	size := 0
	for i := range program.Inst {
		size += 3 + len(program.Inst[i].Rune)/2
	}
	return size
}

// runesOf are the first and last runes of the ranges that a step reads.
func runesOf(inst *syntax.Inst) []rune {
	if len(inst.Rune) != 1 {
		return inst.Rune
	}
	one := inst.Rune[0]
	runes := []rune{one, one}
	if syntax.Flags(inst.Arg)&syntax.FoldCase != 0 {
		for r := unicode.SimpleFold(one); r != one; r = unicode.SimpleFold(r) {
			runes = append(runes, r, r)
		}
	}
	return runes
}

// add adds memory and time to a cost. A text longer than the longest match is given
// up there.
func (x *regexes) add(r *regex, program *syntax.Prog, longest int) {
	text := maxText
	if longest >= 0 {
		text = min(text, longest+1)
	}
	r.bytes = regexBytes + stepBytes*r.steps
	d := x.statesOf(program)
	if d.bytes > maxStateBytes {
		r.bytes += maxStateBytes
		r.time = timePerRegex + time.Duration(text)*(timePerRead+time.Duration(r.steps)*timePerThread)
		return
	}
	r.bytes += d.bytes
	r.time = timePerRegex + time.Duration(text)*timePerByte + time.Duration(min(d.steps, text*2*(d.largest+1)))*timePerStep
}

// longest is the length of the longest text that a pattern matches; -1:
// there is none.
func longest(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpStar, syntax.OpPlus:
		return -1
	}
	sum, most := 0, 0
	for _, sub := range re.Sub {
		n := longest(sub)
		if n < 0 {
			return -1
		}
		sum, most = sum+n, max(most, n)
	}
	switch {
	case re.Op == syntax.OpRepeat && re.Max < 0:
		return -1
	case re.Op == syntax.OpRepeat:
		return sum * re.Max
	case re.Op == syntax.OpAlternate:
		return most
	default:
		return sum
	}
}

// states is what a program's DFA takes.
type states struct {
	bytes   int
	steps   int // to find the next state of each state for each class
	largest int // steps of one state
}

// maxDeterminization bounds the work of statesOf for one pattern, and
// maxDeterminizations for one route. A program that would take more counts as one
// that has more states than RE2 keeps.
const (
	maxDeterminization  = 200_000
	maxDeterminizations = 1_000_000
)

// statesOf counts the states of a program's DFA by making them (the subset
// construction), as RE2 would for a hostile text.
func (x *regexes) statesOf(program *syntax.Prog) states {
	tooMany := states{bytes: maxStateBytes + 1}
	classes := classesOf(program)
	d := determinization{program: program, seen: map[string]bool{}, mark: make([]int, len(program.Inst))}
	limit := min(maxDeterminization, maxDeterminizations-x.work)
	defer func() { x.work += d.work }()
	if !d.visit([]uint32{uint32(program.Start)}) {
		return tooMany
	}
	for len(d.todo) > 0 {
		state := d.todo[0]
		d.todo = d.todo[1:]
		for _, class := range classes {
			var next []uint32
			for _, pc := range state {
				if inst := &program.Inst[pc]; inst.Op != syntax.InstMatch && inst.MatchRune(class) {
					next = append(next, inst.Out)
				}
			}
			if d.work += len(state) + len(next) + 1; d.work > limit || !d.visit(next) {
				return tooMany
			}
		}
	}
	count := len(d.seen)
	return states{bytes: count*(120+8*(len(classes)+1)) + 8*d.size, steps: (d.size + count) * len(classes), largest: d.largest}
}

// determinization is the state of statesOf.
type determinization struct {
	program *syntax.Prog
	seen    map[string]bool // states by their steps
	size    int             // steps of all states
	largest int             // steps of one state
	todo    [][]uint32
	work    int
	mark    []int // of each step, by the number of the last visit
	visits  int
}

// visit notes a state. It returns false for a program with word boundaries.
func (d *determinization) visit(steps []uint32) bool {
	state, ok := d.closure(steps)
	if !ok {
		return false
	}
	slices.Sort(state)
	key := make([]byte, 0, 4*len(state))
	for _, pc := range state {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if !d.seen[string(key)] {
		d.seen[string(key)] = true
		d.size += len(state)
		d.largest = max(d.largest, len(state))
		d.todo = append(d.todo, state)
	}
	return true
}

// closure is the state that consists of what can be reached from steps without
// reading. It returns false for a program with word boundaries: its states also
// depend on what was read before.
func (d *determinization) closure(steps []uint32) (state []uint32, ok bool) {
	d.visits++
	for len(steps) > 0 {
		pc := steps[len(steps)-1]
		if steps = steps[:len(steps)-1]; d.mark[pc] == d.visits {
			continue
		}
		d.mark[pc] = d.visits
		d.work++
		switch inst := &d.program.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			steps = append(steps, inst.Out, inst.Arg)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 {
				return nil, false
			}
			steps = append(steps, inst.Out)
		case syntax.InstCapture, syntax.InstNop:
			steps = append(steps, inst.Out)
		case syntax.InstFail:
		default:
			state = append(state, pc)
		}
	}
	return state, true
}

// classesOf are the first bytes of the ranges that a program treats alike.
func classesOf(program *syntax.Prog) (classes []rune) {
	first := map[rune]bool{0: true}
	for i := range program.Inst {
		inst := &program.Inst[i]
		runes := runesOf(inst)
		if inst.Op == syntax.InstRuneAnyNotNL {
			runes = []rune{'\n', '\n'}
		}
		for k := 0; k+1 < len(runes); k += 2 {
			first[runes[k]], first[runes[k+1]+1] = true, true
		}
	}
	for r := range first {
		if r <= lastByte {
			classes = append(classes, r)
		}
	}
	slices.Sort(classes)
	return classes
}

// shortened is a user's text, cut so that a message stays readable.
func shortened(text string) string { return condition.Shortened(text, 64) }
