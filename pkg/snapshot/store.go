package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

const (
	// maxAge is how long a snapshot counts after the API server last answered.
	maxAge = 24 * time.Hour
	// maxSize is that of all files together. The chart's volume has room for it
	// twice, because a file is written beside the one that it replaces.
	maxSize = 64 << 20
	// saveInterval is between two writes of what changed. Each second of writing is
	// followed by saveFactor seconds of pause, so that it takes at most 2 % of a CPU.
	saveInterval = 5 * time.Second
	saveFactor   = 50
	// settleTime is how long after a start from the snapshot the program may take to
	// see what the API server has changed meanwhile, before anybody writes.
	settleTime   = 2 * time.Second
	pollInterval = 100 * time.Millisecond
	// logInterval is between two lines that say what the program waits for.
	logInterval = 30 * time.Second
)

// Options are what a Store is made from.
type Options struct {
	// Dir is the folder of the files. Empty: no snapshot is written or read.
	Dir string
	// Scheme has all kinds.
	Scheme *runtime.Scheme
	// Kinds are in the snapshot. Others are the further kinds that are watched from
	// the start.
	Kinds, Others []client.Object
	// Skip leaves an object out of the files. Nil: none.
	Skip func(runtime.Object) bool
	// Version is that of the program.
	Version string
	Log     logr.Logger
}

// Store makes informers and keeps what they have. It is a manager's Runnable on
// every replica.
type Store struct {
	options   Options
	informers cache.Informers
	live      chan struct{}

	mu    sync.Mutex // guards kinds
	kinds []*kind
}

// New makes a Store.
func New(options Options) *Store { return &Store{options: options, live: make(chan struct{})} }

// NewInformer makes an informer (cache.Options.NewInformer).
func (s *Store) NewInformer(api toolscache.ListerWatcher, object runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
	gvk, err := apiutil.GVKForObject(object, s.options.Scheme)
	if err != nil {
		panic(fmt.Sprintf("snapshot: %T is not in the scheme: %v", object, err)) // the cache has asked the scheme before
	}
	k := &kind{gvk: gvk, object: reflect.TypeOf(object).Elem(), api: toolscache.ToListerWatcherWithContext(api), log: s.options.Log,
		newList: func() (runtime.Object, error) {
			return s.options.Scheme.New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		},
		header: header{Format: fileFormat, Program: s.options.Version, Kind: gvk.String()}}
	k.informer = toolscache.NewSharedIndexInformer(k.listerWatcher(), object, resync, indexers)
	_ = k.informer.SetWatchErrorHandlerWithContext(k.watchFailed) // it fails for a started informer only
	if s.options.Dir != "" && slices.ContainsFunc(s.options.Kinds, func(o client.Object) bool { return reflect.TypeOf(o).Elem() == k.object }) {
		k.file = fileOf(s.options.Dir, gvk)
		k.changed.Store(true)                              // a kind without objects has a file, too
		_, _ = k.informer.AddEventHandler(k.markChanged()) // it fails for a stopped informer only
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = append(s.kinds, k)
	return k.informer
}

// Watch sets the cache that was made with NewInformer. Call it before Start.
func (s *Store) Watch(informers cache.Informers) { s.informers = informers }

// Live is closed once all informers have what the API server has.
func (s *Store) Live() <-chan struct{} { return s.live }

// Waiting names the kinds that the API server has not listed yet, and why.
func (s *Store) Waiting() []string {
	var out []string
	for _, k := range s.all() {
		if k.live() {
			continue
		}
		name := k.gvk.GroupKind().String()
		if fault := k.fault.Load(); fault != nil {
			name += " (" + *fault + ")"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (s *Store) all() []*kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.kinds)
}

// NeedLeaderElection says that every replica has a snapshot.
func (s *Store) NeedLeaderElection() bool { return false }

// Start starts all informers, and writes the snapshot until ctx ends.
func (s *Store) Start(ctx context.Context) error {
	for _, o := range slices.Concat(s.options.Kinds, s.options.Others) {
		if _, err := s.informers.GetInformer(ctx, o, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watch %T: %w", o, err)
		}
	}
	if s.options.Dir != "" {
		if err := os.MkdirAll(s.options.Dir, 0o700); err != nil { // a hub without a snapshot is better than none
			s.options.Log.Error(err, "could not make the folder of the snapshot")
		}
		removeUnfinished(s.options.Dir)
	}
	go s.awaitLive(ctx)
	if s.options.Dir == "" {
		<-ctx.Done()
		return nil
	}
	for delay := saveInterval; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		began := time.Now()
		s.save()
		delay = max(saveInterval, saveFactor*time.Since(began))
	}
}

// awaitLive closes live.
func (s *Store) awaitLive(ctx context.Context) {
	offline := false
	for logged := time.Now(); ; {
		waiting := false
		for _, k := range s.all() {
			offline = offline || k.offline.Load()
			waiting = waiting || !k.live()
		}
		delay := pollInterval
		switch {
		case !waiting && offline:
			s.options.Log.Info("the API server answers again: it replaces the snapshot")
			offline, delay = false, settleTime
		case !waiting:
			close(s.live)
			return
		case time.Since(logged) > logInterval:
			logged = time.Now()
			s.options.Log.Info("waiting until the API server has listed all kinds; nothing is written before", "waitingFor", s.Waiting())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// save writes the kinds that changed, and confirms the others for as long as the
// API server answers: its bookmarks move an informer's resource version.
func (s *Store) save() {
	kinds := slices.DeleteFunc(s.all(), func(k *kind) bool { return k.file == "" || !s.isWhole(k) })
	left := int64(maxSize)
	for _, k := range kinds {
		left -= k.size
	}
	for _, k := range kinds {
		seen := k.informer.GetIndexer().LastStoreSyncResourceVersion()
		switch changed := k.changed.Swap(false); {
		case changed:
			left += k.size
			s.write(k, left)
			left -= k.size
		case seen != k.seenAt && k.size > 0:
			now := time.Now()
			_ = os.Chtimes(k.file, now, now) // it is older than it could be
		}
		k.seenAt = seen
	}
}

// partsOf are all informers of a kind. A cache of some namespaces has one for each;
// they share a file, and each starts with all of it until the API server answers.
func (s *Store) partsOf(k *kind) []*kind {
	return slices.DeleteFunc(s.all(), func(other *kind) bool { return other.file != k.file })
}

// isWhole says that all informers of a kind have what the API server has.
func (s *Store) isWhole(k *kind) bool {
	return !slices.ContainsFunc(s.partsOf(k), func(part *kind) bool { return !part.live() })
}

// write writes one kind. What cannot be written must not be read later as if it
// were the latest.
func (s *Store) write(k *kind, limit int64) {
	var objects []runtime.Object
	for _, part := range s.partsOf(k) {
		for _, o := range part.informer.GetIndexer().List() {
			if object := o.(runtime.Object); s.options.Skip == nil || !s.options.Skip(object) {
				objects = append(objects, object)
			}
		}
	}
	size, err := writeFile(k.file, k.header, objects, limit)
	k.size = size
	if err != nil {
		k.size = 0
		k.changed.Store(!errors.Is(err, errTooLarge)) // with the next change it may fit
		err = errors.Join(err, os.RemoveAll(k.file))
		s.options.Log.Error(err, "could not write the snapshot; a hub that restarts waits for the API server", "kind", k.gvk.Kind)
	}
}
