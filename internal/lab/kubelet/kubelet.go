package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"crossway.dev/crossway/internal/lab/network"
)

// Config is one node.
type Config struct {
	Name    string
	Labels  map[string]string
	Network *network.Node
	Client  kubernetes.Interface
	// Informers are the cluster's, shared by its nodes; whoever made them
	// starts them, after New.
	Informers informers.SharedInformerFactory
	Images    Images
	Dir       string // volumes and roots
	LogDir    string // one file per container
	// APIServer is host and port of the Service "kubernetes".
	APIServerHost, APIServerPort string
	// DNS is the cluster's name server, which may come later.
	DNS string
	// Certificate is the one that the node serves logs and exec with.
	Certificate tls.Certificate
	Log         *slog.Logger
}

// Kubelet runs the pods of one node.
type Kubelet struct {
	Config
	mu      sync.Mutex // guards workers and closed
	workers map[types.UID]*worker
	closed  bool
	running sync.WaitGroup // the workers

	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

// New returns a Kubelet that has subscribed to the informers; Run registers its
// node.
func New(c Config) (*Kubelet, error) {
	k := &Kubelet{Config: c, workers: map[types.UID]*worker{}, broadcaster: record.NewBroadcaster()}
	k.recorder = k.broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: c.Name})
	k.broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: c.Client.CoreV1().Events("")})
	if k.Log == nil {
		k.Log = slog.New(slog.DiscardHandler)
	}
	_, err := k.Informers.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.observe(o.(*v1.Pod)) },
		UpdateFunc: func(_, o any) { k.observe(o.(*v1.Pod)) },
		DeleteFunc: func(o any) { k.forget(o) },
	})
	if err != nil {
		return nil, err
	}
	refresh := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.refresh(o) },
		UpdateFunc: func(_, o any) { k.refresh(o) },
		DeleteFunc: func(o any) { k.refresh(o) },
	}
	if _, err := k.Informers.Core().V1().Secrets().Informer().AddEventHandler(refresh); err != nil {
		return nil, err
	}
	_, err = k.Informers.Core().V1().ConfigMaps().Informer().AddEventHandler(refresh)
	return k, err
}

// Run registers the node, serves logs and exec, and returns when ctx ends and
// every pod's processes are gone. Pods then stay in the API as they were.
func (k *Kubelet) Run(ctx context.Context) error {
	server, err := k.serve()
	if err != nil {
		return fmt.Errorf("serve logs and exec of node %s: %w", k.Name, err)
	}
	defer server.Close()
	if err := k.register(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("register node %s: %w", k.Name, err)
	}
	<-ctx.Done()
	k.stop()
	return nil
}

// stop ends all workers and returns when their processes are gone; no worker
// starts after that.
func (k *Kubelet) stop() {
	k.mu.Lock()
	k.closed = true
	for _, w := range k.workers {
		w.vanish()
	}
	k.mu.Unlock()
	k.running.Wait()
	k.broadcaster.Shutdown()
}

// observe starts the worker of a pod of this node, or updates it.
func (k *Kubelet) observe(pod *v1.Pod) {
	if pod.Spec.NodeName != k.Name {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok := k.workers[pod.UID]; ok {
		w.update(pod)
		return
	}
	if k.closed || (terminal(pod) && pod.DeletionTimestamp == nil) {
		return
	}
	w := newWorker(k, pod)
	k.workers[pod.UID] = w
	k.running.Add(1)
	go func() {
		defer k.running.Done()
		_ = guard(func() error { // which logs a panic
			w.run()
			return nil
		})
		k.mu.Lock()
		delete(k.workers, pod.UID)
		k.mu.Unlock()
	}()
}

func terminal(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

// forget ends the worker of a pod that is gone from the API.
func (k *Kubelet) forget(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	pod, ok := o.(*v1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok := k.workers[pod.UID]; ok {
		w.vanish()
	}
}

// refresh lets the pods of a namespace write their volumes again.
func (k *Kubelet) refresh(o any) {
	if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	object, ok := o.(interface{ GetNamespace() string })
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if w.namespace == object.GetNamespace() {
			w.refresh()
		}
	}
}

func (k *Kubelet) find(namespace, name string) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if w.namespace == namespace && w.name == name {
			return w
		}
	}
	return nil
}

// Dial connects from inside a pod's network to a numeric address. It reports
// whether the node has the pod.
func (k *Kubelet) Dial(ctx context.Context, pod types.NamespacedName, proto, address string) (net.Conn, bool, error) {
	w := k.find(pod.Namespace, pod.Name)
	if w == nil {
		return nil, false, nil
	}
	conn, err := network.Dial(ctx, w.ns(), proto, address)
	return conn, true, err
}

// Kill sends SIGKILL to every process of a pod and does not start its
// containers again before the time is over. It reports whether the node has
// the pod.
func (k *Kubelet) Kill(namespace, name string, down time.Duration) bool {
	w := k.find(namespace, name)
	if w == nil {
		return false
	}
	w.kill(down)
	return true
}
