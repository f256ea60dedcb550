package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

const (
	// probeTimeout is how long the API server may take to list one object before
	// it counts as one that does not answer.
	probeTimeout = 2 * time.Second
	// probeInterval is between two probes while it does not.
	probeInterval = time.Second
)

// kind is one kind of objects: where its informer gets them from.
type kind struct {
	gvk      schema.GroupVersionKind
	object   reflect.Type // without the pointer
	newList  func() (runtime.Object, error)
	api      toolscache.ListerWatcherWithContext
	informer toolscache.SharedIndexInformer
	// file is that of the snapshot; empty: the kind is not in it.
	file   string
	header header
	log    logr.Logger

	// offline: the informer has what the snapshot has.
	offline atomic.Bool
	// changed: an object changed since the kind was written.
	changed atomic.Bool
	// fault is why the API server's list could not be read; nil: no fault yet.
	fault atomic.Pointer[string]

	// All below belongs to the goroutine that writes the snapshot.
	size   int64  // of the file
	seenAt string // resource version of the informer when the file was last written or confirmed
}

func (k *kind) newObject() runtime.Object { return reflect.New(k.object).Interface().(runtime.Object) }

// listed says that the informer has had a list of the API server, whose resource
// version is never empty. That of the snapshot's list is.
func (k *kind) listed() bool { return k.informer.LastSyncResourceVersion() != "" }

// live says that the informer's store has what the API server has. client-go sets
// the store's resource version together with its content.
func (k *kind) live() bool { return k.informer.GetIndexer().LastStoreSyncResourceVersion() != "" }

// listerWatcher is what the informer lists and watches. It lists first: a watch that begins with a list (KEP-3157) takes
// twice the processor time of one answer, in the hub and in the API server, and the hub has room for one.
func (k *kind) listerWatcher() toolscache.ListerWatcher {
	return toolscache.ToListWatcherWithWatchListSemantics(&toolscache.ListWatch{ListWithContextFunc: k.list, WatchFuncWithContext: k.watch}, listsFirst{})
}

// listsFirst is a client of whom client-go's reflectors begin no watch with a list.
type listsFirst struct{}

func (listsFirst) IsWatchListSemanticsUnSupported() bool { return true }

func (k *kind) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	objects, offline := k.fromSnapshot(ctx)
	k.offline.Store(offline)
	if !offline {
		list, err := k.api.ListWithContext(ctx, latest(options))
		return list, k.afterOutage(ctx, err)
	}
	list, err := k.newList()
	if err != nil {
		return nil, err
	}
	return list, meta.SetList(list, objects)
}

// latest asks for all that the API server has now. A reflector's first list is of version 0, for which an API server
// answers with what it happens to have, which may be older than what the program knew before it restarted.
func latest(options metav1.ListOptions) metav1.ListOptions {
	if options.ResourceVersion == "0" {
		options.ResourceVersion, options.Limit = "", 0
	}
	return options
}

func (k *kind) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if k.offline.Load() {
		return k.untilAnswer(ctx), nil
	}
	w, err := k.api.WatchWithContext(ctx, options)
	return w, k.afterOutage(ctx, err)
}

// mayStartOffline says that the API server has never listed the kind, and that there
// is a snapshot of it.
func (k *kind) mayStartOffline() bool { return k.file != "" && !k.listed() && exists(k.file) }

// fromSnapshot returns the snapshot's objects if the API server has never listed
// the kind and does not answer.
func (k *kind) fromSnapshot(ctx context.Context) ([]runtime.Object, bool) {
	if !k.mayStartOffline() {
		return nil, false
	}
	err := k.probe(ctx)
	if err == nil || ctx.Err() != nil {
		return nil, false
	}
	objects, fault := readFile(k.file, k.header, maxAge, k.newObject)
	if fault != nil {
		k.log.Info("the snapshot is ignored", "kind", k.gvk.Kind, "reason", fault.Error())
		return nil, false
	}
	k.log.Info("the API server does not answer: starting with the snapshot", "kind", k.gvk.Kind, "objects", len(objects), "reason", err.Error())
	return objects, true
}

// probe says whether the API server answers for this kind.
func (k *kind) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := k.api.ListWithContext(ctx, metav1.ListOptions{Limit: 1})
	return err
}

// afterOutage returns err, and where it is not an answer of the API server, once the
// API server answers or ctx ends. Otherwise the reflector would try again ever less
// often, and see changes up to a minute after a long outage. Where the next try may
// start from the snapshot, it is not delayed.
func (k *kind) afterOutage(ctx context.Context, err error) error {
	if err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && !k.mayStartOffline() {
		k.awaitAnswer(ctx)
	}
	return err
}

// awaitAnswer probes until the API server answers or ctx ends.
func (k *kind) awaitAnswer(ctx context.Context) {
	for k.probe(ctx) != nil {
		select {
		case <-time.After(probeInterval):
		case <-ctx.Done():
			return
		}
	}
}

// untilAnswer is a watch without events, which ends as one whose resource version is too old once the API server answers:
// the reflector then lists again.
func (k *kind) untilAnswer(ctx context.Context) watch.Interface {
	results := make(chan watch.Event)
	w := watch.NewProxyWatcher(results)
	go func() {
		defer close(results)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-w.StopChan():
				cancel()
			case <-ctx.Done():
			}
		}()
		k.awaitAnswer(ctx)
		status := apierrors.NewResourceExpired("the API server answers again").Status()
		select {
		case results <- watch.Event{Type: watch.Error, Object: &status}:
		case <-ctx.Done():
		}
	}()
	return w
}

// watchFailed logs why a kind cannot be listed or watched. client-go tries again.
func (k *kind) watchFailed(ctx context.Context, r *toolscache.Reflector, err error) {
	if !k.listed() {
		reason := err.Error()
		if apierrors.IsNotFound(err) {
			reason = fmt.Sprintf("the API server does not know %s: install its CRD", k.gvk)
			k.log.Info("waiting for a kind that the API server does not know: install its CRD", "kind", k.gvk.Kind, "group", k.gvk.Group, "version", k.gvk.Version)
		}
		k.fault.Store(&reason)
	}
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
}

// markChanged is the event handler that makes the kind be written.
func (k *kind) markChanged() toolscache.ResourceEventHandler {
	mark := func(any) { k.changed.Store(true) }
	return toolscache.ResourceEventHandlerFuncs{AddFunc: mark, DeleteFunc: mark, UpdateFunc: func(before, after any) {
		if before.(metav1.Object).GetResourceVersion() != after.(metav1.Object).GetResourceVersion() {
			k.changed.Store(true)
		}
	}}
}

func fileOf(dir string, gvk schema.GroupVersionKind) string {
	return filepath.Join(dir, gvk.Kind+"."+gvk.Version+"."+cmp.Or(gvk.Group, "core")+".snapshot")
}
