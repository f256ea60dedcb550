package kubelet

import (
	"context"
	"log/slog"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Scheduler binds each pod of a cluster to the node with the fewest pods among
// those that its nodeSelector and required node affinity allow; the first of
// equals. A node without pod network gets pods with hostNetwork only. Taints,
// resources and spreading do not exist in the lab.
type Scheduler struct {
	client kubernetes.Interface
	nodes  []*v1.Node
	log    *slog.Logger
	mu     sync.Mutex           // guards bound
	bound  map[types.UID]string // pod to node
	queue  chan *v1.Pod
}

// NewScheduler subscribes to the informers of a cluster with these nodes. A
// node counts with its name, its labels and its condition NetworkUnavailable.
func NewScheduler(client kubernetes.Interface, factory informers.SharedInformerFactory, nodes []*v1.Node, log *slog.Logger) (*Scheduler, error) {
	s := &Scheduler{client: client, nodes: nodes, log: log, bound: map[types.UID]string{}, queue: make(chan *v1.Pod, 10000)}
	observe := func(o any) {
		if pod := o.(*v1.Pod); pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 {
			s.queue <- pod
		}
	}
	_, err := factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    observe,
		UpdateFunc: func(_, o any) { observe(o) },
		DeleteFunc: func(o any) {
			if pod, ok := o.(*v1.Pod); ok {
				s.mu.Lock()
				delete(s.bound, pod.UID)
				s.mu.Unlock()
			}
		},
	})
	return s, err
}

// Run binds pods until ctx ends.
func (s *Scheduler) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case pod := <-s.queue:
			err := guard(func() error { return s.bind(ctx, pod) })
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				s.log.Error("could not bind pod", "pod", pod.Namespace+"/"+pod.Name, "error", err)
			}
		}
	}
}

func (s *Scheduler) bind(ctx context.Context, pod *v1.Pod) error {
	node, reason := s.choose(pod)
	if node == "" {
		return s.reportUnschedulable(ctx, pod, reason)
	}
	return s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

// choose returns the pod's node, or why it has none.
func (s *Scheduler) choose(pod *v1.Pod) (best, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for _, node := range s.bound {
		count[node]++
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	reason = "no node of the lab has the labels that nodeSelector or node affinity asks for"
	for _, node := range s.nodes {
		fits, err := required.Match(node)
		switch {
		case err != nil || !fits:
		case !pod.Spec.HostNetwork && !hasPodNetwork(node):
			reason = "the nodes that nodeSelector or node affinity allows have no pod network and run only pods with hostNetwork"
		case best == "" || count[node.Name] < count[best]:
			best = node.Name
		}
	}
	if best != "" {
		s.bound[pod.UID] = best
	}
	return best, reason
}

// reportUnschedulable writes once why a pod stays Pending.
func (s *Scheduler) reportUnschedulable(ctx context.Context, pod *v1.Pod, reason string) error {
	if c := condition(&pod.Status, v1.PodScheduled); c != nil {
		return nil
	}
	pod = pod.DeepCopy()
	pod.Status.Conditions = append(pod.Status.Conditions, v1.PodCondition{
		Type: v1.PodScheduled, Status: v1.ConditionFalse, Reason: v1.PodReasonUnschedulable, LastTransitionTime: metav1.Now(),
		Message: reason,
	})
	_, err := s.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

func condition(status *v1.PodStatus, kind v1.PodConditionType) *v1.PodCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return nil
}
