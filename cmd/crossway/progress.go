package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progress says on standard error what takes time. On a terminal a wait is one line
// that changes; elsewhere (a pipe, a CI log) each state is a line of its own.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// say prints a line.
func (p *progress) say(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// state returns what is so now, and whether that is what is waited for.
type state func(context.Context) (now string, done bool, err error)

// pollInterval is how often a wait asks.
const pollInterval = 200 * time.Millisecond

// wait asks until the state is what is waited for, for at most the limit. A request that
// fails and may succeed soon is sent again.
func (p *progress) wait(ctx context.Context, what string, limit time.Duration, ask state) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticks := time.NewTicker(pollInterval)
	defer ticks.Stop()
	began, last, shown := time.Now(), "no answer yet", ""
	for {
		now, done, err := ask(limited)
		switch {
		case ctx.Err() != nil:
			p.end()
			return ctx.Err()
		case limited.Err() != nil:
			p.end()
			return marked{fmt.Errorf("waited %s for %s; last seen: %s", limit, what, last), errTimeout}
		case passing(err):
			now = fmt.Sprintf("no answer: %v", err)
		case err != nil:
			p.end()
			return err
		}
		last = now
		shown = p.show(fmt.Sprintf("%s: %s", what, now), shown, time.Since(began))
		if done && err == nil {
			p.end()
			return nil
		}
		select {
		case <-limited.Done():
		case <-ticks.C:
		}
	}
}

// show prints a state that changed; on a terminal also the time, in place.
func (p *progress) show(line, shown string, since time.Duration) string {
	switch {
	case p.terminal:
		fmt.Fprintf(p.out, "\r\x1b[K%s (%s)", line, since.Round(time.Second))
	case line != shown:
		fmt.Fprintln(p.out, line)
	}
	return line
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprintln(p.out)
	}
}
