package writer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
)

// writeTimeout is how long one status may take, so that an API server that accepts
// connections and never answers does not hold the workers.
const writeTimeout = 20 * time.Second

// Options are the dependencies and settings of a Writer.
type Options struct {
	// Client writes status and reads objects, from a cache if it has one.
	Client client.Client
	// Live reads from the API server, after a write or a conflict. Nil: Client.
	Live client.Reader
	// Workers is the number of concurrent status writes. 0: 2, so that status writes
	// do not slow down the API server.
	Workers int
	// Clock is the clock of lastTransitionTime. Nil: the real clock.
	Clock clock.PassiveClock
}

// Writer writes status on the leader. It is a Runnable that may be started again
// when it has ended: it keeps the reports that come meanwhile.
type Writer struct {
	options Options
	metrics metrics

	mu     sync.Mutex // guards all below
	queue  queue      // nil: not running
	wanted map[fleet.ObjectRef]map[*Source]condition.Report
}

type queue = workqueue.TypedRateLimitingInterface[fleet.ObjectRef]

// New makes a Writer.
func New(options Options) *Writer {
	if options.Live == nil {
		options.Live = options.Client
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	options.Workers = cmp.Or(options.Workers, 2)
	return &Writer{options: options, metrics: newMetrics(), wanted: map[fleet.ObjectRef]map[*Source]condition.Report{}}
}

// Collectors are the writer's metrics, which the caller registers.
func (w *Writer) Collectors() []prometheus.Collector {
	return []prometheus.Collector{w.metrics.writes, w.metrics.conflicts}
}

// Start writes the reports so far, and later ones, until ctx ends.
func (w *Writer) Start(ctx context.Context) error {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[fleet.ObjectRef](20*time.Millisecond, time.Minute)
	q := workqueue.NewTypedRateLimitingQueue(limiter)
	w.mu.Lock()
	w.queue = q
	for o := range w.wanted {
		q.Add(o)
	}
	w.mu.Unlock()

	var workers sync.WaitGroup
	for range w.options.Workers {
		workers.Go(func() {
			for w.next(ctx, q) {
			}
		})
	}
	<-ctx.Done()
	w.mu.Lock()
	w.queue = nil
	w.mu.Unlock()
	q.ShutDown()
	workers.Wait()
	return nil
}

// next writes one object's status. It returns false once the queue is shut down.
func (w *Writer) next(ctx context.Context, q queue) bool {
	o, shutdown := q.Get()
	if shutdown {
		return false
	}
	defer done(q, o)
	limited, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := w.write(limited, o); err != nil && ctx.Err() == nil {
		w.metrics.writes.WithLabelValues(string(o.Kind), "error").Inc()
		log.FromContext(ctx).Error(err, "could not write a status", "kind", o.Kind, "object", o.Name.String())
		q.AddRateLimited(o)
		return true
	}
	q.Forget(o)
	return true
}

// poolWriteInterval is between two writes of one EdgePool's status: edges that
// come and go must not cost a write each.
const poolWriteInterval = 200 * time.Millisecond

// done lets the next write of an object begin.
func done(q queue, o fleet.ObjectRef) {
	if o.Kind == condition.EdgePool {
		time.AfterFunc(poolWriteInterval, func() { q.Done(o) })
		return
	}
	q.Done(o)
}

// write updates one object's status to the reports. It forgets objects that do not
// exist.
func (w *Writer) write(ctx context.Context, o fleet.ObjectRef) error {
	var reader client.Reader = w.options.Client
	result := "unchanged"
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		reports := w.reports(o)
		if len(reports) == 0 {
			return nil
		}
		stored, err := newObject(o.Kind)
		if err != nil {
			return err
		}
		if err := reader.Get(ctx, client.ObjectKey(o.Name), stored); err != nil {
			return fmt.Errorf("read %s: %w", o, err)
		}
		now := metav1.NewTime(w.options.Clock.Now().Truncate(time.Second))
		if !apply(o.Kind, stored, reports, now) {
			return nil
		}
		// The cache may not have our last write yet: retries read from the API server.
		reader = w.options.Live
		if err := w.options.Client.Status().Update(ctx, stored); err != nil {
			if apierrors.IsConflict(err) {
				w.metrics.conflicts.WithLabelValues(string(o.Kind)).Inc()
				return err // not wrapped, because RetryOnConflict does not unwrap
			}
			return fmt.Errorf("update status of %s: %w", o, err)
		}
		result = "written"
		return nil
	})
	if notFound(err) {
		w.forget(o)
		err = nil
	}
	if err == nil {
		w.metrics.writes.WithLabelValues(string(o.Kind), result).Inc()
	}
	return err
}

func notFound(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Reason == metav1.StatusReasonNotFound
}

// reports are all sources' reports on an object, by the sources' names.
func (w *Writer) reports(o fleet.ObjectRef) []sourced {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []sourced
	for source, report := range w.wanted[o] {
		out = append(out, sourced{source, report})
	}
	sortSourced(out)
	return out
}

func (w *Writer) forget(o fleet.ObjectRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wanted, o)
}

// Source is the only producer of conditions of its types.
type Source struct {
	writer   *Writer
	name     string
	types    map[string]bool
	reported map[fleet.ObjectRef]bool // guarded by writer.mu
}

// Source makes a Source of these condition types. A stored condition of one of them
// is removed when a later report does not have it.
func (w *Writer) Source(name string, types ...string) *Source {
	s := &Source{writer: w, name: name, types: map[string]bool{}, reported: map[fleet.ObjectRef]bool{}}
	for _, t := range types {
		s.types[t] = true
	}
	return s
}

// Report replaces all reports of the source. The status of an object that has no
// report any more stays as it is, and the object is forgotten. Report does not
// block. It keeps the slices of the reports: do not change them afterwards.
func (s *Source) Report(reports []condition.Report) {
	w := s.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	reported := make(map[fleet.ObjectRef]bool, len(reports))
	for _, report := range reports {
		o := report.Ref.Object()
		reported[o] = true
		before, found := w.wanted[o][s]
		if found && (sameSlices(before, report) || reflect.DeepEqual(before, report)) {
			continue
		}
		if w.wanted[o] == nil {
			w.wanted[o] = map[*Source]condition.Report{}
		}
		w.wanted[o][s] = report
		if w.queue != nil {
			w.queue.Add(o)
		}
	}
	for o := range s.reported {
		if reported[o] {
			continue
		}
		delete(w.wanted[o], s)
		if len(w.wanted[o]) == 0 {
			delete(w.wanted, o)
		}
	}
	s.reported = reported
}

// sameSlices says whether two reports on a route have the same slices, and so the
// same content: slices of a report are never changed. It is a fast path for the
// many routes whose reports Build reuses.
func sameSlices(a, b condition.Report) bool {
	return a.Ref == b.Ref && a.Pool == b.Pool && len(a.Parents) > 0 && len(a.Parents) == len(b.Parents) && &a.Parents[0] == &b.Parents[0] &&
		len(a.Conditions)+len(b.Conditions)+len(a.Listeners)+len(b.Listeners)+
			len(a.Addresses)+len(b.Addresses)+len(a.Features)+len(b.Features) == 0
}

// Recheck compares the object's status with the reports again, because another
// client wrote to it. It does not block.
func (s *Source) Recheck(kind condition.Kind, name fleet.ObjectName) {
	w := s.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	o := fleet.ObjectRef{Kind: kind, Name: name}
	if w.queue != nil && len(w.wanted[o]) > 0 {
		w.queue.Add(o)
	}
}
