package kubelet

import (
	"context"
	"encoding/json"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// publish writes the pod's status whenever it has changed, until ctx ends and
// the last change is written.
func (w *worker) publish(ctx context.Context) {
	var last v1.PodStatus
	for ending := false; !ending; {
		select {
		case <-w.dirty:
		case <-w.gone:
			return
		case <-ctx.Done():
			ending = true
		}
		var status v1.PodStatus
		err := guard(func() error {
			status = w.status(&last)
			if equality.Semantic.DeepEqual(status, last) {
				return nil
			}
			return w.patch(status)
		})
		switch {
		case err == nil:
			last = status
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			return // deleted, or another pod of this name
		default:
			w.k.Log.Warn("could not write pod status", "pod", w.namespace+"/"+w.name, "error", shorten(err.Error()))
			time.AfterFunc(200*time.Millisecond, w.touch)
		}
	}
}

// patch replaces the status in one request, without reading it first; the UID
// keeps it off another pod of the same name.
func (w *worker) patch(status v1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": w.uid}, "status": status})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = w.k.Client.CoreV1().Pods(w.namespace).Patch(ctx, w.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// status is the pod's status now; times of conditions that did not change are
// those of last.
func (w *worker) status(last *v1.PodStatus) v1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	hostIP := w.k.Network.Address.String()
	s := v1.PodStatus{
		StartTime: &w.started, HostIP: hostIP, HostIPs: []v1.HostIP{{IP: hostIP}}, Reason: w.reason, Message: w.message,
		QOSClass: w.pod.Status.QOSClass, ObservedGeneration: w.pod.Generation,
	}
	if address := w.addressLocked(); address != "" {
		s.PodIP, s.PodIPs = address, []v1.PodIP{{IP: address}}
		if w.network != nil {
			s.PodIPs = append(s.PodIPs, v1.PodIP{IP: w.network.Address6.String()})
		}
	}
	for _, c := range w.inits {
		s.InitContainerStatuses = append(s.InitContainerStatuses, c.status(w.reason, w.message))
	}
	ready := w.initted
	for _, c := range w.mains {
		s.ContainerStatuses = append(s.ContainerStatuses, c.status(w.reason, w.message))
		ready = ready && c.ready
	}
	s.Phase = w.phase()
	s.Conditions = conditions(map[v1.PodConditionType]bool{
		v1.PodScheduled: true, v1.PodReadyToStartContainers: s.PodIP != "", v1.PodInitialized: w.initted, v1.ContainersReady: ready, v1.PodReady: ready,
	}, last.Conditions)
	return s
}

// status is the container's status. What its pod waits for, it waits for.
func (c *container) status(podReason, podMessage string) v1.ContainerStatus {
	running, state := c.state.Running != nil, c.state
	if podReason != "" && state.Waiting != nil && state.Waiting.Reason == creating {
		state = waiting(podReason, podMessage)
	}
	return v1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: c.id, State: state, LastTerminationState: c.last,
		Ready: c.ready || (c.isInit && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0), Started: &running, RestartCount: c.restarts,
	}
}

// phase follows the containers (pod lifecycle, "Pod phase"); w.mu is held.
func (w *worker) phase() v1.PodPhase {
	for _, c := range w.inits {
		if t := c.state.Terminated; t != nil && t.ExitCode != 0 && w.spec.RestartPolicy == v1.RestartPolicyNever {
			return v1.PodFailed
		}
	}
	ended, failed, begun := 0, false, false
	for _, c := range w.mains {
		if t := c.state.Terminated; t != nil {
			ended++
			failed = failed || t.ExitCode != 0
		}
		begun = begun || c.id != ""
	}
	forGood := w.spec.RestartPolicy != v1.RestartPolicyAlways
	switch {
	case !begun:
		return v1.PodPending
	case ended < len(w.mains) || !forGood || (failed && w.spec.RestartPolicy == v1.RestartPolicyOnFailure):
		return v1.PodRunning
	case failed:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

func conditions(now map[v1.PodConditionType]bool, last []v1.PodCondition) []v1.PodCondition {
	var all []v1.PodCondition
	for _, kind := range []v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled} {
		c := v1.PodCondition{Type: kind, Status: v1.ConditionFalse, LastTransitionTime: metav1.Now()}
		if now[kind] {
			c.Status = v1.ConditionTrue
		}
		for _, old := range last {
			if old.Type == kind && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		all = append(all, c)
	}
	return all
}
