package server

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/memberapi"
)

const (
	// writeTimeout is how long a client may take to read a part of an answer.
	writeTimeout = 30 * time.Second
	// maxWatchTime is the longest that a watch lasts, so that credentials are looked at again.
	maxWatchTime = 10 * time.Minute
	// bookmarkInterval is how often a watch is told how far it is. It is shorter than deletions are remembered.
	bookmarkInterval = time.Minute
)

// get answers with one object.
func (h *handler) get(w http.ResponseWriter, q *request) error {
	h.mu.RLock()
	object := q.log.Get(q.object)
	if object == nil || !q.reader.Sees(q.object.Namespace) {
		h.mu.RUnlock()
		return apierrors.NewNotFound(q.log.Resource.WithResource(q.log.Resource.Name).GroupResource(), q.object.Name)
	}
	text := q.reader.AppendJSON(nil, q.log, memberapi.Event{Object: object})
	h.mu.RUnlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(text)
	return nil
}

// stream writes an answer in parts, each in bounded time.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func newStream(w http.ResponseWriter) stream { return stream{w, http.NewResponseController(w)} }

func (s stream) write(text []byte) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(text); err != nil {
		return err
	}
	if err := s.rc.Flush(); err != nil {
		return err
	}
	return s.rc.SetWriteDeadline(time.Time{}) // HTTP/2 resets a stream even if nothing waits to be written
}

// list answers with all objects, as they are when their part of the answer is written. A watch from the list's version
// is told of those that changed meanwhile.
func (h *handler) list(w http.ResponseWriter, r *http.Request, q *request) error {
	if q.options.Continue != "" || q.options.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
		return apierrors.NewResourceExpired("the member API lists what is there now, and all at once")
	}
	end, ok := h.beginList(q.reader.Cluster)
	if !ok {
		return apierrors.NewTooManyRequests(fmt.Sprintf("member %q has %d lists open", q.reader.Cluster, maxLists), 1)
	}
	defer end()
	h.mu.RLock()
	watch := memberapi.NewWatch(q.reader, q.log, q.object.Namespace)
	h.mu.RUnlock()
	out, compressed := newStream(w), compression{}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Vary", "Accept-Encoding")
	if acceptsGzip(r) {
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.WriteHeader(http.StatusOK)
	text := fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%s"},"items":[`, q.log.Resource.Kind+"List", q.log.Resource.GroupVersion.String(), watch.Position())
	separator := ""
	for listed := false; !listed; {
		h.mu.RLock()
		events, _, err := watch.Next(h.state)
		h.mu.RUnlock()
		if err != nil { // before the last part, or the client would take the list for whole
			panic(http.ErrAbortHandler)
		}
		for _, e := range events {
			if e.Type == memberapi.Listed {
				listed = true
				text = append(text, "]}\n"...)
				continue
			}
			text = q.reader.AppendJSON(append(text, separator...), q.log, e)
			separator = ","
		}
		part := text
		if acceptsGzip(r) {
			part = compressed.part(text, listed)
		}
		if err := out.write(part); err != nil {
			panic(http.ErrAbortHandler)
		}
		text = text[:0]
	}
	return nil
}

// watchObjects answers with a stream of events.
func (h *handler) watchObjects(w http.ResponseWriter, r *http.Request, q *request) error {
	watch := h.newWatch(q)
	h.mu.RLock()
	events, more, err := watch.Next(h.state)
	h.mu.RUnlock()
	if err != nil {
		h.catchUp(r.Context(), q.reader.Cluster, q.position.Seen)
		return statusOf(err, q.reader.Cluster)
	}
	open := &openWatch{cluster: q.reader.Cluster, resource: q.log.Resource.Name, watch: watch, reader: q.reader, wake: batch.NewSignal(),
		displaced: make(chan struct{}), began: h.config.Clock.Now()}
	open.wake.Set() // what changed before it was open
	defer h.opened(open)()
	ctx, cancel := context.WithTimeout(r.Context(), h.watchTime(q))
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	t := &watchStream{handler: h, q: q, open: open, out: newStream(w)}
	if err := t.send(events); err == nil {
		t.run(ctx, more)
	}
	return nil
}

// newWatch is the Watch that a request asks for.
func (h *handler) newWatch(q *request) *memberapi.Watch {
	h.mu.RLock()
	defer h.mu.RUnlock()
	initial := q.options.SendInitialEvents
	switch {
	case ptr.Deref(initial, q.position.Version == 0):
		return memberapi.NewWatch(q.reader, q.log, q.object.Namespace)
	case q.position.Version == 0:
		return memberapi.ResumedWatch(q.reader, q.log, q.object.Namespace, h.state.Version())
	default:
		return memberapi.ResumedWatch(q.reader, q.log, q.object.Namespace, q.position.Version)
	}
}

// watchTime is how long a watch lasts: as long as its client asks for and its credential is valid. Those of many clients
// that ask for no time do not end together.
func (h *handler) watchTime(q *request) time.Duration {
	longest := maxWatchTime/2 + rand.N(maxWatchTime/2)
	if q.options.TimeoutSeconds != nil {
		longest = min(maxWatchTime, time.Duration(*q.options.TimeoutSeconds)*time.Second)
	}
	if !q.expiry.IsZero() {
		longest = min(longest, q.expiry.Sub(h.config.Clock.Now()))
	}
	return longest
}

// watchStream is the answer to a watch.
type watchStream struct {
	*handler
	q    *request
	open *openWatch
	out  stream
}

// run sends what changes until ctx ends, the client is gone, or may not read on.
func (t *watchStream) run(ctx context.Context, more bool) {
	bookmarks := t.config.Clock.NewTicker(bookmarkInterval)
	defer bookmarks.Stop()
	for {
		bookmark := false
		if !more {
			select {
			case <-t.open.wake:
			case <-bookmarks.C():
				bookmark = true
			case <-ctx.Done():
				return
			case <-t.open.displaced:
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		t.mu.RLock()
		events, moreNow, err := t.open.watch.Next(t.state)
		t.mu.RUnlock()
		if err != nil {
			_ = t.out.write(errorEvent(statusOf(err, t.q.reader.Cluster)))
			return
		}
		if t.send(events) != nil || bookmark && len(events) == 0 && t.sendBookmark(false) != nil {
			return
		}
		more = moreNow
	}
}

// send sends events. Listed is a bookmark, if the client asked for it.
func (t *watchStream) send(events []memberapi.Event) error {
	var text []byte
	for _, e := range events {
		if e.Type == memberapi.Listed {
			if ptr.Deref(t.q.options.SendInitialEvents, false) {
				text = t.appendBookmark(text, true)
			}
			continue
		}
		text = append(text, `{"type":"`...)
		text = append(text, e.Type.String()...)
		text = append(text, `","object":`...)
		text = append(t.q.reader.AppendJSON(text, t.q.log, e), "}\n"...)
	}
	return t.out.write(text) // also an empty part, the first of which says that the watch is open
}

func (t *watchStream) sendBookmark(initial bool) error {
	return t.out.write(t.appendBookmark(nil, initial))
}

// appendBookmark appends a bookmark if the client takes them. initial: it ends the initial events.
func (t *watchStream) appendBookmark(text []byte, initial bool) []byte {
	if !t.q.options.AllowWatchBookmarks {
		return text
	}
	annotations := ""
	if initial {
		annotations = `,"annotations":{"` + metav1.InitialEventsAnnotationKey + `":"true"}`
	}
	resource := t.q.log.Resource
	return fmt.Appendf(text, `{"type":"BOOKMARK","object":{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%s"%s}}}`+"\n",
		resource.Kind, resource.GroupVersion.String(), t.open.watch.Position(), annotations)
}

// errorEvent is the last event of a watch.
func errorEvent(err *apierrors.StatusError) []byte {
	status := err.ErrStatus
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	text, _ := json.Marshal(metav1.WatchEvent{Type: "ERROR", Object: runtime.RawExtension{Object: &status}})
	return append(text, '\n')
}
