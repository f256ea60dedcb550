package kubelet

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
)

// maxMessage bounds what a pod's status and Events say of one error: an error
// may quote a whole command line, and a status must fit beside its spec.
const maxMessage = 1024

var loggedPanics sync.Map // by text: what panics is tried again, and its stack is logged once

// guard runs act and returns its panic as an error. Whatever a pod leads the
// lab's own code to is reported on that pod, and the lab goes on.
func guard(act func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, logged := loggedPanics.LoadOrStore(fmt.Sprint(r), true); !logged {
				slog.Error("the lab's kubelet panicked", "panic", r, "stack", string(debug.Stack()))
			}
			err = fmt.Errorf("the lab's kubelet panicked: %v; its log has the stack", r)
		}
	}()
	return act()
}

// reasonError is an error with the reason that a kubelet gives for it.
type reasonError struct {
	reason string
	error
}

func (e reasonError) Unwrap() error { return e.error }

func because(reason string, err error) error {
	if err == nil {
		return nil
	}
	return reasonError{reason, err}
}

// reasonOf is the reason of an error, or otherwise where it has none.
func reasonOf(err error, otherwise string) string {
	var e reasonError
	if errors.As(err, &e) {
		return e.reason
	}
	return otherwise
}

// explain puts into the pod's status why it waits, and writes an Event when
// that changes. An empty reason says that it waits no longer.
func (w *worker) explain(reason, message string) {
	w.mu.Lock()
	message = shorten(message)
	changed := w.reason != reason || w.message != message
	w.reason, w.message = reason, message
	pod := w.pod
	w.mu.Unlock()
	if changed && reason != "" {
		w.event(pod, reason, message)
	}
	if changed {
		w.touch()
	}
}

func (w *worker) event(pod *v1.Pod, reason, message string) {
	w.k.recorder.Event(pod, v1.EventTypeWarning, reason, shorten(message))
}

func shorten(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " ..."
}
