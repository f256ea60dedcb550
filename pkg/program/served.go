package program

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// servedInterval is between two questions whether the API server serves a kind.
const servedInterval = 10 * time.Second

// WhenServed starts something once the API server serves a kind: one whose CRD may be
// installed later, or never. An informer would fail and log until then. It is a manager's
// Runnable on every replica.
type WhenServed struct {
	// Reader asks the API server, not a cache.
	Reader client.Reader
	// Kinds are versions of one kind, the preferred one first.
	Kinds []schema.GroupVersionKind
	// Namespace is where objects of the kind may be listed; empty: everywhere.
	Namespace string
	Then      func(served schema.GroupVersionKind) error
}

// NeedLeaderElection says that every replica waits.
func (WhenServed) NeedLeaderElection() bool { return false }

// Start asks until one of the kinds is served, starts what is to start, and ends.
func (w WhenServed) Start(ctx context.Context) error {
	var logged string
	for {
		for _, kind := range w.Kinds {
			err := w.ask(ctx, kind)
			if err == nil {
				return w.Then(kind)
			}
			if reason := err.Error(); !apierrors.IsNotFound(err) && reason != logged && ctx.Err() == nil {
				logged = reason
				ctrl.Log.WithName("optional-kinds").Info("it is not known whether a kind is served", "kind", kind.String(), "reason", reason)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(servedInterval):
		}
	}
}

func (w WhenServed) ask(ctx context.Context, kind schema.GroupVersionKind) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	var list unstructured.UnstructuredList
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return w.Reader.List(ctx, &list, client.Limit(1), client.InNamespace(w.Namespace))
}
