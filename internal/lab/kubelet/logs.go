package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logFile is the container's log over all its restarts. Each line begins with
// its time, RFC 3339 with nanoseconds. A long pod name is cut: a file's name has
// at most 255 bytes.
func (c *container) logFile() string {
	return filepath.Join(c.w.k.LogDir, fmt.Sprintf("%s_%.100s_%s_%.8s.log", c.w.namespace, c.w.name, c.spec.Name, c.w.uid))
}

// maxLine is where a line without end is cut, so that a program that never ends
// its line does not use up the lab's memory.
const maxLine = 64 << 10

// stamper writes whole lines with their time.
type stamper struct {
	mu      sync.Mutex // stdout and stderr may be copied by two goroutines
	file    *os.File
	partial []byte
}

func openLog(name string) (*stamper, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	return &stamper{file: f}, err
}

func (s *stamper) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)
	var out []byte
	rest := append(s.partial, p...)
	for {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found && len(rest) < maxLine {
			break
		}
		if !found {
			line, after = rest[:maxLine], rest[maxLine:]
		}
		out = append(append(append(append(out, now...), ' '), line...), '\n')
		rest = after
	}
	s.partial = bytes.Clone(rest)
	_, err := s.file.Write(out)
	return len(p), err
}

func (s *stamper) Close() error {
	if len(s.partial) > 0 {
		_, _ = s.Write([]byte("\n"))
	}
	return s.file.Close()
}

// logOptions are the query parameters of containerLogs that the lab knows.
type logOptions struct {
	since            time.Time
	tail             int // -1: all
	follow, stamps   bool
	limit, remaining int64
}

func logOptionsOf(q url.Values) (logOptions, error) {
	o := logOptions{tail: -1, follow: q.Get("follow") == "true", stamps: q.Get("timestamps") == "true"}
	var errs []error
	if s := q.Get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		o.since, errs = t, append(errs, err)
	}
	if s := q.Get("sinceSeconds"); s != "" {
		n, err := strconv.Atoi(s)
		o.since, errs = time.Now().Add(-time.Duration(n)*time.Second), append(errs, err)
	}
	if s := q.Get("tailLines"); s != "" {
		n, err := strconv.Atoi(s)
		o.tail, errs = n, append(errs, err)
	}
	if s := q.Get("limitBytes"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		o.limit, errs = n, append(errs, err)
	}
	if q.Get("previous") == "true" {
		errs = append(errs, errors.New("the lab keeps one log over all restarts; ask without previous"))
	}
	o.remaining = o.limit
	return o, errors.Join(errs...)
}

// serveLogs answers /containerLogs/{namespace}/{pod}/{container}.
func (k *Kubelet) serveLogs(w http.ResponseWriter, r *http.Request) {
	c := k.container(r)
	if c == nil {
		http.Error(w, "no such container on this node", http.StatusNotFound)
		return
	}
	o, err := logOptionsOf(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	f, err := os.Open(c.logFile())
	if errors.Is(err, fs.ErrNotExist) {
		return // it has not run yet
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	if err := o.copyLog(r.Context(), w, f, c); err != nil && r.Context().Err() == nil {
		k.Log.Warn("send logs", "file", f.Name(), "error", err)
	}
}

// copyLog sends the lines that are asked for, and with follow those to come
// until the client leaves or the pod's worker ends.
func (o *logOptions) copyLog(ctx context.Context, w http.ResponseWriter, f io.Reader, c *container) error {
	lines := bufio.NewReader(f)
	var kept []string
	caughtUp, ended := o.tail < 0, false
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err == nil && !caughtUp:
			if o.wanted(line) {
				kept = append(kept, line)
				kept = kept[max(0, len(kept)-o.tail):]
			}
		case err == nil:
			if done, err := o.send(w, line); done || err != nil {
				return err
			}
		case errors.Is(err, io.EOF):
			for _, l := range kept {
				if done, err := o.send(w, l); done || err != nil {
					return err
				}
			}
			caughtUp, kept = true, nil
			if !o.follow || ended {
				return nil
			}
			w.(http.Flusher).Flush()
			select {
			case <-ctx.Done():
				return nil
			case <-c.w.ended: // what is left is read once more
				ended = true
			case <-time.After(50 * time.Millisecond):
			}
		default:
			return err
		}
	}
}

func (o *logOptions) wanted(line string) bool {
	stamp, _, _ := strings.Cut(line, " ")
	t, err := time.Parse(time.RFC3339Nano, stamp)
	return err != nil || !t.Before(o.since.Truncate(time.Second))
}

// send writes one line; done says that the limit is reached.
func (o *logOptions) send(w io.Writer, line string) (done bool, err error) {
	if !o.wanted(line) {
		return false, nil
	}
	if !o.stamps {
		_, line, _ = strings.Cut(line, " ")
	}
	if o.limit > 0 {
		line = line[:min(int64(len(line)), o.remaining)]
		o.remaining -= int64(len(line))
	}
	_, err = io.WriteString(w, line)
	return o.limit > 0 && o.remaining == 0, err
}
