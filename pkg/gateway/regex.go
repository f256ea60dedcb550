package gateway

import (
	"fmt"
	"regexp/syntax"
	"unicode/utf8"

	"crossway.dev/crossway/pkg/condition"
)

// maxRegexSize is the largest accepted estimate of RE2's program size. Edges
// accept programs up to 100,000 (re2.max_program_size.error_level in their
// bootstrap; its default is 100). Go's own count was measured at down to 0.4 of
// RE2's, and a character class beyond ASCII takes RE2 about ten instructions for
// each range. A third of the edges' limit is therefore safe.
const maxRegexSize = 33_000

// regexProblem says why Envoy would reject a pattern, or "". Go's syntax is RE2's
// without \C.
func regexProblem(pattern string) string {
	if pattern == "" {
		return "the regular expression is empty"
	}
	if !utf8.ValidString(pattern) {
		return "the regular expression is not UTF-8"
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return fmt.Sprintf("the regular expression %q is not valid RE2: %v", shortened(pattern), err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return fmt.Sprintf("the regular expression %q is not valid RE2: %v", shortened(pattern), err)
	}
	if size := programSize(program); size > maxRegexSize {
		return fmt.Sprintf("the regular expression %q is too large (about %d steps, at most %d); repeat less, or use fewer classes", shortened(pattern), size, maxRegexSize)
	}
	return ""
}

func programSize(program *syntax.Prog) int {
	size := 0
	for i := range program.Inst {
		size++
		switch inst := &program.Inst[i]; inst.Op {
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			size += 10
		case syntax.InstRune, syntax.InstRune1:
			for _, r := range inst.Rune {
				if r >= utf8.RuneSelf {
					size += 10
				}
			}
			size += len(inst.Rune) / 2
		}
	}
	return size
}

// shortened is a user's text, cut so that a message stays readable.
func shortened(text string) string { return condition.Shortened(text, 64) }
