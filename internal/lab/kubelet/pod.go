package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/internal/lab/network"
)

// worker runs one pod, from its first event to its deletion.
type worker struct {
	k               *Kubelet
	namespace, name string
	uid             types.UID
	spec            v1.PodSpec
	started         metav1.Time
	inits, mains    []*container
	volumes         *volumes

	starting context.Context // ends when no container may be started any more
	stop     context.CancelFunc
	gone     chan struct{} // closed: end at once, and write no status
	goneOnce sync.Once
	deleted  chan struct{} // closed: the pod has a deletionTimestamp
	delOnce  sync.Once
	ended    chan struct{} // closed: no container runs, and none will
	dirty    chan struct{} // the status may have changed
	changed  chan struct{} // a Secret or ConfigMap of the namespace has changed

	mu      sync.Mutex // guards what follows, and the containers' states
	pod     *v1.Pod    // as last seen
	network *network.Pod
	reason  string // why it waits, in one word
	message string // and in a sentence
	initted bool   // all init containers have succeeded
}

func newWorker(k *Kubelet, pod *v1.Pod) *worker {
	w := &worker{
		k: k, namespace: pod.Namespace, name: pod.Name, uid: pod.UID, pod: pod, spec: pod.Spec, started: metav1.Now(),
		gone: make(chan struct{}), deleted: make(chan struct{}), ended: make(chan struct{}), dirty: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
	w.starting, w.stop = context.WithCancel(context.Background())
	w.volumes = newVolumes(w)
	for _, c := range pod.Spec.InitContainers {
		w.inits = append(w.inits, newContainer(w, c, true))
	}
	for _, c := range pod.Spec.Containers {
		w.mains = append(w.mains, newContainer(w, c, false))
	}
	w.update(pod)
	return w
}

// update takes a newer version of the pod.
func (w *worker) update(pod *v1.Pod) {
	w.mu.Lock()
	w.pod = pod
	w.mu.Unlock()
	if pod.DeletionTimestamp != nil {
		w.delOnce.Do(func() { close(w.deleted) })
	}
}

func (w *worker) vanish() { w.goneOnce.Do(func() { close(w.gone) }) }

func (w *worker) refresh() { offer(w.changed) }

// touch says that the status may have changed.
func (w *worker) touch() { offer(w.dirty) }

func offer(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *worker) dir() string { return filepath.Join(w.k.Dir, string(w.uid)) }

func (w *worker) containers() []*container {
	return append(append([]*container{}, w.inits...), w.mains...)
}

// run runs the pod until it is deleted.
func (w *worker) run() {
	defer os.RemoveAll(w.dir())
	defer w.stop()
	publishing, finish := context.WithCancel(context.Background())
	published := make(chan struct{})
	go func() {
		defer close(published)
		w.publish(publishing)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := guard(func() error {
			w.start(w.starting)
			return nil
		})
		if err != nil {
			w.explain("KubeletError", err.Error())
		}
	}()
	grace := time.Duration(0)
	select {
	case <-w.gone:
	case <-w.deleted:
		grace = w.grace()
	}
	w.stop()
	w.terminate(grace)
	<-done
	close(w.ended)
	w.closeNetwork()
	finish()
	<-published
	select {
	case <-w.gone:
	default:
		w.delete()
	}
}

func (w *worker) grace() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(ptr.Deref(w.pod.DeletionGracePeriodSeconds, 30)) * time.Second
}

// start brings the pod up: network, volumes, init containers in order, then
// the others; it returns when none runs and none is to be started.
func (w *worker) start(ctx context.Context) {
	for _, step := range []func() error{w.check, w.openNetwork, func() error { return because("FailedMount", w.volumes.write(ctx)) }} {
		if !w.retry(ctx, step) {
			return
		}
	}
	keeping := make(chan struct{})
	go func() {
		defer close(keeping)
		w.volumes.keep(ctx)
	}()
	defer func() { <-keeping }()
	for _, c := range w.inits {
		if !c.loop(ctx) {
			return
		}
	}
	w.mu.Lock()
	w.initted = true
	w.mu.Unlock()
	w.touch()
	var all sync.WaitGroup
	for _, c := range w.mains {
		all.Go(func() {
			err := guard(func() error {
				c.loop(ctx)
				return nil
			})
			if err != nil {
				c.failed(ctx, err)
			}
		})
	}
	all.Wait()
	<-ctx.Done() // ended containers stay in the status until the pod is deleted
}

// retry repeats an act until it succeeds, and shows in the status why it fails.
func (w *worker) retry(ctx context.Context, act func() error) bool {
	for {
		err := guard(act)
		if err == nil {
			w.explain("", "")
			return true
		}
		w.explain(reasonOf(err, "KubeletError"), err.Error())
		select {
		case <-ctx.Done():
			return false
		case <-w.changed:
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// check returns an error for a pod that the lab cannot run.
func (w *worker) check() error {
	for _, c := range w.spec.InitContainers {
		if ptr.Deref(c.RestartPolicy, "") == v1.ContainerRestartPolicyAlways {
			return because("Unsupported", fmt.Errorf("init container %s has restartPolicy Always; the lab runs no sidecars", c.Name))
		}
	}
	return because(noPodNetwork, w.k.checkNode(w.spec))
}

func (w *worker) openNetwork() error {
	if w.spec.HostNetwork {
		return nil
	}
	p, err := w.k.Network.NewPod()
	w.mu.Lock()
	w.network = p
	w.mu.Unlock()
	return because("FailedCreatePodSandBox", err)
}

func (w *worker) closeNetwork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.network == nil {
		return
	}
	if err := w.network.Close(); err != nil {
		w.k.Log.Error("could not close the pod's network", "pod", w.namespace+"/"+w.name, "error", err)
	}
}

// ns is the network namespace of the pod's containers, address how they are
// reached.
func (w *worker) ns() netns.NsHandle {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.network == nil {
		return w.k.Network.NS
	}
	return w.network.NS
}

func (w *worker) address() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addressLocked()
}

func (w *worker) addressLocked() string {
	switch {
	case w.spec.HostNetwork:
		return w.k.Network.Address.String()
	case w.network != nil:
		return w.network.Address.String()
	}
	return ""
}

// terminate stops every container: preStop, SIGTERM, and SIGKILL at the end of
// the grace period, or at once where the pod vanishes meanwhile.
func (w *worker) terminate(grace time.Duration) {
	deadline := time.Now().Add(grace)
	var all sync.WaitGroup
	for _, c := range w.containers() {
		all.Go(func() { c.stop(deadline) })
	}
	all.Wait()
}

// kill is a crash of the whole pod.
func (w *worker) kill(down time.Duration) {
	for _, c := range w.containers() {
		c.crash(down)
	}
}

// delete removes the pod from the API, now that nothing of it runs.
func (w *worker) delete() {
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := w.k.Client.CoreV1().Pods(w.namespace).Delete(ctx, w.name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(w.uid)),
		})
		cancel()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		select {
		case <-w.gone:
			return
		case <-time.After(delay):
			w.k.Log.Error("could not delete pod", "pod", fmt.Sprintf("%s/%s", w.namespace, w.name), "error", err)
		}
	}
}
