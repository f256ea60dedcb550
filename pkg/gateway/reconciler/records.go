package reconciler

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/batch"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
)

// record is what a hub that restarts must know of a route that a pool refuses, or of
// one that is over budget (without a pool): the route's API object has only the
// refused generation. It is the data of a ControllerRevision, which is how Kubernetes
// keeps earlier versions of objects.
type record struct {
	Pool       string          `json:"pool"`
	Kind       fleet.Kind      `json:"kind"`
	Namespace  string          `json:"namespace"`
	Name       string          `json:"name"`
	UID        types.UID       `json:"uid"`
	Generation int64           `json:"generation"` // that is refused
	Message    string          `json:"message,omitempty"`
	Outvoted   bool            `json:"outvoted,omitempty"` // only some edges of the pool refuse it
	Instead    json.RawMessage `json:"instead,omitempty"`  // the object that the pool serves
}

// maxRecords bounds the records of one pool: one edge can refuse every route.
const maxRecords = 128

// maxKeptRecords bounds the records of routes of one namespace that are over budget.
const maxKeptRecords = 32

// RefusalSelector selects the records of refusals among ControllerRevisions.
func RefusalSelector() client.MatchingLabels {
	return client.MatchingLabels{v1alpha1.LabelRefusedRoute: "true"}
}

// recordsOf are the records of refusals, by name. A name is a hash of the content,
// because a ControllerRevision never changes.
func recordsOf(namespace string, refusals []rollout.Refusal) (map[string]*appsv1.ControllerRevision, error) {
	records, inPool := map[string]*appsv1.ControllerRevision{}, map[string]int{}
	for _, f := range refusals {
		from, limit := f.Pool, maxRecords
		if f.Pool == "" {
			from, limit = "/"+f.Ref.Name.Namespace, maxKeptRecords
		}
		if inPool[from]++; inPool[from] > limit {
			continue
		}
		data, revision, err := contentOfRefusal(f)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		name := "crossway-refused-" + hex.EncodeToString(sum[:10])
		note := fmt.Sprintf("%s, refused by EdgePool %s", f.Ref, f.Pool)
		if f.Pool == "" {
			note = fmt.Sprintf("%s, over budget", f.Ref)
		}
		records[name] = &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: RefusalSelector(),
				Annotations: map[string]string{v1alpha1.LabelRefusedRoute: note}},
			Data: runtime.RawExtension{Raw: data}, Revision: revision,
		}
	}
	return records, nil
}

// contentOfRefusal is the record of a refusal, and the generation that it keeps.
func contentOfRefusal(f rollout.Refusal) (data []byte, revision int64, err error) {
	content := record{Pool: f.Pool, Kind: f.Ref.Kind, Namespace: f.Ref.Name.Namespace, Name: f.Ref.Name.Name,
		UID: f.Version.UID, Generation: f.Version.Generation, Message: f.Message, Outvoted: f.Outvoted}
	revision = f.Version.Generation
	if f.Instead != nil {
		object, err := contentOf(f.Instead.Source.(*gateway.Route).Object())
		if err != nil {
			return nil, 0, fmt.Errorf("record generation %d of %s: %w", f.Instead.Generation, f.Ref, err)
		}
		content.Instead, revision = object, f.Instead.Generation
	}
	if data, err = json.Marshal(content); err != nil {
		return nil, 0, fmt.Errorf("record the refusal of %s: %w", f.Ref, err)
	}
	return data, revision, nil
}

// contentOf is a route without its status, and without what may be in its metadata for
// others: no budget bounds that, and all records are encoded for each route that
// changes.
func contentOf(o client.Object) ([]byte, error) {
	o = o.DeepCopyObject().(client.Object)
	o.SetAnnotations(nil)
	o.SetLabels(nil)
	o.SetFinalizers(nil)
	o.SetOwnerReferences(nil)
	o.SetManagedFields(nil)
	all, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(all, &fields); err != nil {
		return nil, err
	}
	delete(fields, "status")
	return json.Marshal(fields)
}

// refusal is the refusal of a record.
func (content record) refusal() (rollout.Refusal, error) {
	f := rollout.Refusal{Pool: content.Pool, Message: content.Message, Outvoted: content.Outvoted,
		Ref:     fleet.RouteRef{Kind: content.Kind, Name: fleet.ObjectName{Namespace: content.Namespace, Name: content.Name}},
		Version: rollout.ObjectVersion{UID: content.UID, Generation: content.Generation}}
	if len(content.Instead) == 0 {
		return f, nil
	}
	kinds := gateway.RouteKinds()
	at := slices.IndexFunc(kinds, func(k gateway.RouteKind) bool { return k.Kind == content.Kind })
	if at < 0 {
		return f, fmt.Errorf("unknown kind %s", content.Kind)
	}
	object := kinds[at].Object.DeepCopyObject().(gateway.RouteObject)
	if err := json.Unmarshal(content.Instead, object); err != nil {
		return f, err
	}
	instead := objectOfRoute(kinds[at].Route(object))
	f.Instead = &instead
	return f, nil
}

// restoreRefusals takes in the records of another process.
func (r *Reconciler) restoreRefusals(ctx context.Context) error {
	if r.options.Records == nil {
		return nil
	}
	var stored appsv1.ControllerRevisionList
	if err := r.options.Cache.List(ctx, &stored, client.InNamespace(r.options.Records.Namespace), RefusalSelector()); err != nil {
		return fmt.Errorf("list what edges refused: %w", err)
	}
	slices.SortFunc(stored.Items, func(a, b appsv1.ControllerRevision) int { return cmp.Compare(a.Revision, b.Revision) })
	var refusals []rollout.Refusal
	for i := range stored.Items {
		f, err := refusalFrom(stored.Items[i].Data.Raw)
		if err != nil {
			log.FromContext(ctx).Error(err, "could not read what an edge refused", "controllerRevision", stored.Items[i].Name)
			continue
		}
		refusals = append(refusals, f)
	}
	r.rollout.Restore(r.restoreKept(refusals))
	return nil
}

func sameInstead(a, b *rollout.Object) bool {
	return a == b || a != nil && b != nil && a.ObjectVersion == b.ObjectVersion
}

// record hands over the records if the refusals are not those of the last call.
func (r *Reconciler) record(ctx context.Context, refusals []rollout.Refusal) {
	same := func(a, b rollout.Refusal) bool {
		return a.Pool == b.Pool && a.Ref == b.Ref && a.Version == b.Version && a.Message == b.Message && sameInstead(a.Instead, b.Instead) && a.Outvoted == b.Outvoted
	}
	if r.options.Records == nil || r.recorded && slices.EqualFunc(r.refusals, refusals, same) {
		return
	}
	records, err := recordsOf(r.options.Records.Namespace, refusals)
	if err != nil {
		log.FromContext(ctx).Error(err, "could not record what edges refuse")
		return
	}
	r.recorded, r.refusals = true, refusals
	r.options.Records.setDesired(records)
}

const (
	// minRecordInterval is between two rounds of writes of records.
	minRecordInterval = 200 * time.Millisecond
	// maxRecordRetryDelay bounds the time between two tries of a failed write.
	maxRecordRetryDelay = 30 * time.Second
)

// Records writes the records of what pools or budgets refuse. It is a Runnable that runs
// while this replica leads. Every replica knows what the edges of all of them refuse.
type Records struct {
	Client    client.Client
	Namespace string
	Clock     clock.Clock // nil: the real one

	inbox *batch.Inbox[map[string]*appsv1.ControllerRevision]
}

// NewRecords makes Records that are kept in a namespace.
func NewRecords(c client.Client, namespace string) *Records {
	return &Records{Client: c, Namespace: namespace, Clock: clock.RealClock{},
		inbox: batch.NewInbox(func() map[string]*appsv1.ControllerRevision { return nil })}
}

func (w *Records) setDesired(desired map[string]*appsv1.ControllerRevision) {
	w.inbox.Add(func(p *map[string]*appsv1.ControllerRevision) { *p = desired })
}

// Start writes until ctx ends. It may be called again.
func (w *Records) Start(ctx context.Context) error {
	var desired map[string]*appsv1.ControllerRevision
	defer func() { // for the next term, unless there are newer ones
		w.inbox.Add(func(p *map[string]*appsv1.ControllerRevision) {
			if *p == nil {
				*p = desired
			}
		})
	}()
	retryDelay := minRecordInterval
	var retries <-chan time.Time // while something could not be written
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.inbox.Wake():
			if next := w.inbox.Drain(); next != nil {
				desired = next
			}
		case <-retries:
		}
		retries = nil
		if err := w.write(ctx, desired); err == nil {
			retryDelay = minRecordInterval
		} else if ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "could not record what edges refuse")
			retryDelay = min(2*retryDelay, maxRecordRetryDelay)
			retries = w.Clock.After(retryDelay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.Clock.After(minRecordInterval):
		}
	}
}

// write creates the records that are missing, and then deletes those that are not
// needed any more, but for one whose successor could not be created. desired is nil
// until the first Build.
func (w *Records) write(ctx context.Context, desired map[string]*appsv1.ControllerRevision) error {
	if desired == nil {
		return nil
	}
	var stored appsv1.ControllerRevisionList
	if err := w.Client.List(ctx, &stored, client.InNamespace(w.Namespace), RefusalSelector()); err != nil {
		return err
	}
	known := map[string]bool{}
	for i := range stored.Items {
		known[stored.Items[i].Name] = true
	}
	var errs []error
	missing := map[string]bool{} // by what they are about
	for name, revision := range desired {
		if known[name] {
			continue
		}
		if err := client.IgnoreAlreadyExists(w.Client.Create(ctx, revision.DeepCopy())); err != nil {
			errs = append(errs, err)
			missing[revision.Annotations[v1alpha1.LabelRefusedRoute]] = true
		}
	}
	for i := range stored.Items {
		if desired[stored.Items[i].Name] == nil && !missing[stored.Items[i].Annotations[v1alpha1.LabelRefusedRoute]] {
			errs = append(errs, client.IgnoreNotFound(w.Client.Delete(ctx, &stored.Items[i])))
		}
	}
	return errors.Join(errs...)
}
