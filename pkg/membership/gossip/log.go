package gossip

import (
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// memberlist writes a line for each message that it refuses, so whoever sends many
// would fill the log. logEvery is how often one of its lines passes, of each level.
const logEvery = 10 * time.Second

// logWriter passes memberlist's lines on, which begin with their level.
type logWriter struct {
	log logr.Logger
	now func() time.Time

	mu     sync.Mutex // guards the rest
	closed bool
	last   map[string]time.Time
	left   map[string]int
}

func newLogWriter(log logr.Logger) *logWriter {
	return &logWriter{log: log, now: time.Now, last: map[string]time.Time{}, left: map[string]int{}}
}

// logLevels: memberlist calls an error what the other side may cause, and what it
// repairs itself.
var logLevels = map[string]int{"[ERR]": 1, "[ERROR]": 1, "[WARN]": 1, "[INFO]": 1, "[DEBUG]": 2}

// close lets no line pass any more: memberlist's goroutines go on for a while after its
// Shutdown.
func (w *logWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// Write implements io.Writer.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	verbosity, ok := logLevels[level]
	if !ok {
		level, text, verbosity = "", strings.TrimSpace(string(line)), 1
	}
	if !w.log.V(verbosity).Enabled() {
		return len(line), nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(line), nil
	}
	if now := w.now(); now.Sub(w.last[level]) < logEvery {
		w.left[level]++
		return len(line), nil
	} else {
		w.last[level] = now
	}
	text = strings.ToValidUTF8(text[:min(len(text), 500)], "?")
	w.log.V(verbosity).Info("memberlist: "+strings.TrimPrefix(text, "memberlist: "), "leftOut", w.left[level])
	w.left[level] = 0
	return len(line), nil
}
