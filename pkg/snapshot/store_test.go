package snapshot

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/testkit"
)

// Errors of reflectors are only logged: client-go's other handler sleeps until 1 ms after the last
// error, which in a bubble of fake time is 26 years ahead.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	os.Exit(m.Run())
}

// api is an API server of one kind, Services or Secrets, that can be frozen: requests are then
// answered when it no longer is.
type api struct {
	kind func(name string) client.Object
	list func(items []runtime.Object, version string) runtime.Object

	mu      sync.Mutex
	thawed  chan struct{} // nil: not frozen
	missing bool          // its CRD
	refuses bool          // connections
	dies    bool          // refuses connections after its next answer
	version int
	objects map[string]int // name -> resource version
	lists   []metav1.ListOptions
	// streamed: a watch was to begin with a list.
	streamed bool
	watches  map[*watch.FakeWatcher]bool
}

func newAPI(kind func(name string) client.Object, list func([]runtime.Object, string) runtime.Object) *api {
	return &api{kind: kind, list: list, version: 1, objects: map[string]int{}, watches: map[*watch.FakeWatcher]bool{}}
}

func newServices() *api {
	return newAPI(
		func(name string) client.Object {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		},
		func(items []runtime.Object, version string) runtime.Object {
			l := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
			for _, i := range items {
				l.Items = append(l.Items, *i.(*corev1.Service))
			}
			return l
		})
}

func newSecrets() *api {
	return newAPI(
		func(name string) client.Object {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		},
		func(items []runtime.Object, version string) runtime.Object {
			l := &corev1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
			for _, i := range items {
				l.Items = append(l.Items, *i.(*corev1.Secret))
			}
			return l
		})
}

func (a *api) freeze(frozen bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if frozen {
		a.thawed = make(chan struct{})
		return
	}
	close(a.thawed)
	a.thawed = nil
}

func (a *api) object(name string, version int) client.Object {
	o := a.kind(name)
	o.SetResourceVersion(strconv.Itoa(version))
	return o
}

func (a *api) put(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.objects[name] = a.version
	for w := range a.watches {
		w.Modify(a.object(name, a.version))
	}
}

func (a *api) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	delete(a.objects, name)
	for w := range a.watches {
		w.Delete(a.object(name, a.version))
	}
}

// hangUp ends all watches, as a restart of the program does, and of the API server if it is to
// refuse connections afterwards.
func (a *api) hangUp(refuses bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watches {
		w.Stop()
	}
	clear(a.watches)
	a.refuses = refuses
}

func (a *api) answer(ctx context.Context) error {
	a.mu.Lock()
	thawed, missing, refuses := a.thawed, a.missing, a.refuses
	a.mu.Unlock()
	if refuses {
		return syscall.ECONNREFUSED
	}
	a.mu.Lock()
	a.refuses = a.dies
	a.mu.Unlock()
	if missing {
		return apierrors.NewNotFound(schema.GroupResource{}, "")
	}
	if thawed != nil {
		select {
		case <-thawed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (a *api) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if err := a.answer(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lists = append(a.lists, options)
	var items []runtime.Object
	for name, version := range a.objects {
		items = append(items, a.object(name, version))
	}
	return a.list(items, strconv.Itoa(a.version)), nil
}

func (a *api) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if err := a.answer(ctx); err != nil {
		return nil, err
	}
	if options.SendInitialEvents != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.streamed = true
		return nil, apierrors.NewInvalid(schema.GroupKind{}, "", nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if options.ResourceVersion != strconv.Itoa(a.version) { // it keeps no history
		return nil, apierrors.NewResourceExpired("")
	}
	w := watch.NewFakeWithChanSize(100, false)
	a.watches[w] = true
	return w, nil
}

func (a *api) List(o metav1.ListOptions) (runtime.Object, error) {
	return a.ListWithContext(context.Background(), o)
}

func (a *api) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return a.WatchWithContext(context.Background(), o)
}

// program is one run of a program with a Store; its informers are made as controller-runtime's
// cache makes them.
type program struct {
	cache.Informers
	store     *Store
	apis      map[string]*api
	ctx       context.Context
	kill      func()
	all       *sync.WaitGroup
	informers map[string]toolscache.SharedIndexInformer
}

func (p program) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	name := fmt.Sprintf("%T", o)
	informer := p.store.NewInformer(p.apis[name], o, 0, toolscache.Indexers{})
	p.informers[name] = informer
	p.all.Go(func() { informer.RunWithContext(p.ctx) })
	return informer, nil
}

func start(t *testing.T, dir string, services, secrets *api) program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := program{ctx: ctx, informers: map[string]toolscache.SharedIndexInformer{}, all: &sync.WaitGroup{},
		apis: map[string]*api{"*v1.Service": services, "*v1.Secret": secrets},
		store: New(Options{Dir: dir, Scheme: clientgoscheme.Scheme, Version: "v1",
			Kinds:  []client.Object{&corev1.Service{}},
			Others: []client.Object{&corev1.Secret{}},
			Skip:   func(o runtime.Object) bool { return o.(client.Object).GetName() == "skipped" }})}
	p.store.Watch(p)
	p.all.Go(func() { testkit.Must(t, p.store.Start(ctx)) })
	p.kill = func() {
		cancel()
		p.all.Wait()
		services.hangUp(false)
		secrets.hangUp(false)
	}
	synctest.Wait()
	return p
}

// names are the Services that the informer has, if it has synced.
func (p program) names() string {
	informer := p.informers["*v1.Service"]
	if !informer.HasSynced() {
		return "not synced"
	}
	return strings.Join(slices.Sorted(slices.Values(informer.GetIndexer().ListKeys())), " ")
}

func (p program) live() bool {
	select {
	case <-p.store.Live():
		return true
	default:
		return false
	}
}

// A program that restarts while its API server is frozen starts with what it had. Once the API
// server answers, its list counts, and only then the store is live.
func TestRestartWhileTheAPIServerIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, services, secrets := t.TempDir(), newServices(), newSecrets()
		services.put("first")
		services.put("skipped")
		services.put("gone")
		p := start(t, dir, services, secrets)
		time.Sleep(time.Second)
		if got := p.names(); got != "n/first n/gone n/skipped" || !p.live() {
			t.Fatalf("at first %s, live %v", got, p.live())
		}
		services.put("second")
		time.Sleep(2 * saveInterval)
		p.kill()

		services.freeze(true)
		secrets.freeze(true)
		services.remove("gone")
		services.put("new")
		p = start(t, dir, services, secrets)
		time.Sleep(probeTimeout + time.Second)
		if got := p.names(); got != "n/first n/gone n/second" {
			t.Errorf("in the freeze: %s", got)
		}
		secrets.freeze(false)
		time.Sleep(time.Minute)
		if p.live() || strings.Join(p.store.Waiting(), ", ") != "Service" {
			t.Errorf("live %v although Services are those of the snapshot; waiting for %v", p.live(), p.store.Waiting())
		}
		services.freeze(false)
		time.Sleep(time.Minute)
		if got := p.names(); got != "n/first n/new n/second n/skipped" {
			t.Errorf("Services of an API server that answers: %s", got)
		}
		if !p.live() || len(p.store.Waiting()) != 0 {
			t.Errorf("all is there, live %v, waiting for %v", p.live(), p.store.Waiting())
		}
		services.put("last")
		time.Sleep(time.Second)
		if got := p.names(); !strings.Contains(got, "n/last") {
			t.Errorf("a change after the freeze: %s", got)
		}
		p.kill()
	})
}

// An API server that answers is asked, whatever the snapshot has. A snapshot that cannot be read
// is as good as none: the program waits.
func TestSnapshotIsTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, services, secrets := t.TempDir(), newServices(), newSecrets()
		services.put("old")
		p := start(t, dir, services, secrets)
		time.Sleep(2 * saveInterval)
		p.kill()
		services.put("new")
		p = start(t, dir, services, secrets)
		time.Sleep(time.Second)
		if got := p.names(); got != "n/new n/old" || !p.live() {
			t.Errorf("the API server answers: %s, live %v", got, p.live())
		}
		p.kill()

		services.freeze(true)
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		testkit.Must(t, err)
		if len(files) != 1 {
			t.Fatalf("files: %v, want that of Services", files)
		}
		testkit.Must(t, os.Truncate(files[0], 20))
		p = start(t, dir, services, secrets)
		time.Sleep(time.Minute)
		if got := p.names(); got != "not synced" {
			t.Errorf("with a damaged snapshot: %s", got)
		}
		services.freeze(false)
		time.Sleep(2 * time.Minute)
		if got := p.names(); got != "n/new n/old" || !p.live() {
			t.Errorf("the API server answers again: %s, live %v", got, p.live())
		}
		p.kill()
	})
}

// However long the API server was away, its changes are seen within seconds of its return.
func TestChangesAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, secrets := newServices(), newSecrets()
		services.put("a")
		p := start(t, "", services, secrets)
		time.Sleep(time.Second)
		services.hangUp(true)
		services.put("b")
		time.Sleep(time.Hour)
		if got := p.names(); got != "n/a" {
			t.Errorf("in the outage: %s", got)
		}
		services.hangUp(false)
		time.Sleep(10 * time.Second)
		if got := p.names(); got != "n/a n/b" {
			t.Errorf("10 s after it: %s", got)
		}
		p.kill()
	})
}

// An API server that answers once and is gone then is as good as one that does not answer.
func TestAPIServerThatDiesAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, services, secrets := t.TempDir(), newServices(), newSecrets()
		services.put("a")
		p := start(t, dir, services, secrets)
		time.Sleep(2 * saveInterval)
		p.kill()
		services.dies = true
		p = start(t, dir, services, secrets)
		time.Sleep(10 * time.Second)
		if got := p.names(); got != "n/a" || p.live() {
			t.Errorf("it has %s, live %v", got, p.live())
		}
		p.kill()
	})
}

// The first list is of what there is now, in one answer. Of version 0 an API server might give an older state than what the
// program knew before it restarted.
func TestFirstListIsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, secrets := newServices(), newSecrets()
		p := start(t, "", services, secrets)
		time.Sleep(time.Second)
		if services.streamed || len(services.lists) != 1 || services.lists[0].ResourceVersion != "" || services.lists[0].Limit != 0 {
			t.Errorf("streamed %v, lists %+v", services.streamed, services.lists)
		}
		p.kill()
	})
}

// A kind whose CRD is missing is named, and is read once it is there.
func TestMissingCRD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		services, secrets := newServices(), newSecrets()
		secrets.missing = true
		p := start(t, "", services, secrets)
		time.Sleep(time.Minute)
		if got := strings.Join(p.store.Waiting(), ", "); p.live() || got != "Secret (the API server does not know /v1, Kind=Secret: install its CRD)" {
			t.Errorf("live %v, waiting for %s", p.live(), got)
		}
		secrets.mu.Lock()
		secrets.missing = false
		secrets.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if !p.live() {
			t.Errorf("waiting for %v", p.store.Waiting())
		}
		p.kill()
	})
}

// A file is written where something changed, and its time is moved as long as the API server
// answers.
func TestFilesAreWrittenWhereSomethingChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, services, secrets := t.TempDir(), newServices(), newSecrets()
		services.put("a")
		p := start(t, dir, services, secrets)
		time.Sleep(2 * saveInterval)
		k := p.store.all()[slices.IndexFunc(p.store.all(), func(k *kind) bool { return k.file != "" })]
		inode := func() os.FileInfo {
			info, err := os.Stat(k.file)
			testkit.Must(t, err)
			return info
		}
		first := inode()
		time.Sleep(time.Hour)
		if again := inode(); !os.SameFile(first, again) || !again.ModTime().Equal(first.ModTime()) {
			t.Error("written or confirmed although nothing came from the API server")
		}
		services.mu.Lock()
		services.version++
		for w := range maps.Keys(services.watches) {
			w.Action(watch.Bookmark, services.object("", services.version))
		}
		services.mu.Unlock()
		time.Sleep(2 * saveInterval)
		confirmed := inode()
		if !os.SameFile(first, confirmed) || confirmed.ModTime().Equal(first.ModTime()) {
			t.Error("a bookmark must move the file's time, and write nothing")
		}
		services.put("b")
		time.Sleep(2 * saveInterval)
		if os.SameFile(first, inode()) {
			t.Error("a change is not written")
		}
		p.kill()
	})
}

// A cache of some namespaces has an informer of a kind for each. The snapshot has the objects of all.
func TestKindOfSeveralInformers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, services, secrets, more := t.TempDir(), newServices(), newSecrets(), newServices()
		services.put("a")
		more.put("b")
		add := func(p program) toolscache.SharedIndexInformer {
			informer := p.store.NewInformer(more, &corev1.Service{}, 0, toolscache.Indexers{})
			p.all.Go(func() { informer.RunWithContext(p.ctx) })
			return informer
		}
		p := start(t, dir, services, secrets)
		add(p)
		time.Sleep(3 * saveInterval)
		more.put("c")
		time.Sleep(3 * saveInterval)
		p.kill()
		more.hangUp(false)

		services.freeze(true)
		more.freeze(true)
		p = start(t, dir, services, secrets)
		added := add(p)
		time.Sleep(probeTimeout + time.Second)
		if got := fmt.Sprint(p.names(), " and ", slices.Sorted(slices.Values(added.GetIndexer().ListKeys()))); got != "n/a n/b n/c and [n/a n/b n/c]" {
			t.Errorf("in the freeze: %s", got)
		}
		services.freeze(false)
		more.freeze(false)
		time.Sleep(time.Minute)
		if got := fmt.Sprint(p.names(), " and ", slices.Sorted(slices.Values(added.GetIndexer().ListKeys()))); got != "n/a and [n/b n/c]" {
			t.Errorf("after it: %s", got)
		}
		p.kill()
	})
}
