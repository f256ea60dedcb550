package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rolledOut is the state of a Deployment: done once all its pods are of the present
// revision and ready. Until then it says what its pods wait for.
func rolledOut(c client.Client, key client.ObjectKey) state {
	return func(ctx context.Context) (now string, done bool, err error) {
		var d appsv1.Deployment
		if err := c.Get(ctx, key, &d); err != nil {
			return "", false, fmt.Errorf("read Deployment %s: %w", key, err)
		}
		want := ptr.Deref(d.Spec.Replicas, 1)
		s := d.Status
		done = s.ObservedGeneration >= d.Generation && s.UpdatedReplicas >= want && s.AvailableReplicas >= want && s.Replicas == s.UpdatedReplicas
		now = fmt.Sprintf("%d of %d pods ready", min(s.AvailableReplicas, s.UpdatedReplicas), want)
		if done {
			return now, true, nil
		}
		trouble, err := podTrouble(ctx, c, &d)
		return now + trouble, false, err
	}
}

// podTrouble is why a pod of a Deployment does not start, as its kubelet or the
// scheduler says it; "": they say nothing.
func podTrouble(ctx context.Context, c client.Client, d *appsv1.Deployment) (string, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(d.Namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)); err != nil {
		return "", fmt.Errorf("list pods of Deployment %s: %w", d.Name, err)
	}
	for _, p := range pods.Items {
		for _, condition := range p.Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
				return fmt.Sprintf("; pod %s is not scheduled: %s", p.Name, condition.Message), nil
			}
		}
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
				return fmt.Sprintf("; pod %s: %s %s", p.Name, w.Reason, w.Message), nil
			}
		}
	}
	return "", nil
}
