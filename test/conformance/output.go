package conformance

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// rootTest is the Go test that has the suite's tests as its subtests.
const rootTest = "TestConformance"

// recorder reads the output of the suite's program under -test.v=test2json,
// which marks the lines of the testing package and prints each result when its
// test ends, and prints which test runs.
type recorder struct {
	plan    testPlan
	out     io.Writer // one line when a test begins, one when it ends
	log     io.Writer // all output
	current string    // the test that the next lines belong to
	begun   []string
	lines   map[string][]string // output by test; dropped when it passes
	results map[string]string   // PASS, FAIL or SKIP, by test
}

func newRecorder(plan testPlan, out, log io.Writer) *recorder {
	return &recorder{plan: plan, out: out, log: log, lines: map[string][]string{}, results: map[string]string{}}
}

// read follows the output to its end.
func (r *recorder) read(output io.Reader) error {
	lines := bufio.NewReader(output)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := r.line(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// marker begins the testing package's own lines under -test.v=test2json.
const marker = "\x16"

func (r *recorder) line(line string) error {
	// What a test printed without a line end stands before the marker.
	text, frame, marked := strings.Cut(strings.TrimRight(line, "\n"), marker)
	if _, err := io.WriteString(r.log, text+frame+"\n"); err != nil {
		return err
	}
	if text != "" {
		r.output(text)
	}
	if marked {
		r.frame(strings.ReplaceAll(frame, marker, ""))
	}
	return nil
}

func (r *recorder) frame(text string) {
	fields := strings.Fields(text)
	if len(fields) < 3 {
		return
	}
	kind, result, name := fields[0], strings.TrimSuffix(fields[1], ":"), fields[2]
	switch {
	case kind == "===":
		r.current = suiteTestOf(name)
	case kind == "---" && name == rootTest+"/"+suiteTestOf(name):
		r.end(suiteTestOf(name), result, strings.Join(fields[3:], " "))
	}
}

// suiteTestOf is the suite's name of the test that a Go test belongs to, empty
// for the root test.
func suiteTestOf(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// output takes one line of a test. The first line says that the test runs: a
// parallel test is named long before that.
func (r *recorder) output(text string) {
	r.lines[r.current] = append(r.lines[r.current], text)
	if r.plan.run[r.current] && !slices.Contains(r.begun, r.current) {
		r.begun = append(r.begun, r.current)
		fmt.Fprintf(r.out, "%d of %d: %s ...\n", len(r.begun), len(r.plan.run), r.current)
	}
}

func (r *recorder) end(name, result, took string) {
	r.results[name] = result
	if result == "PASS" {
		delete(r.lines, name)
	}
	if r.plan.run[name] {
		fmt.Fprintf(r.out, "  %s: %s %s\n", name, map[string]string{"PASS": "passed", "FAIL": "FAILED", "SKIP": "SKIPPED"}[result], took)
	}
}

// maxShown is how many lines of a failed test are printed; the log has all.
const maxShown = 40

// printFailures shows the last output of each planned test that did not pass,
// or of the set-up where no test has run.
func (r *recorder) printFailures(out io.Writer) {
	names := r.notPassed()
	if len(r.results) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		lines := r.lines[name]
		if len(lines) == 0 {
			continue
		}
		fmt.Fprintf(out, "\noutput of %s:\n", strings.TrimSuffix(rootTest+"/"+name, "/"))
		for _, line := range lines[max(0, len(lines)-maxShown):] {
			fmt.Fprintln(out, "  "+line)
		}
	}
}

// notPassed are the planned tests without the result PASS.
func (r *recorder) notPassed() []string {
	var names []string
	for name := range r.plan.run {
		if r.results[name] != "PASS" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
