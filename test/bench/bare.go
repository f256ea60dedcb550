package bench

import (
	"context"
	"fmt"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// bareNamespace has objects that Crossway ignores. Writing and watching them costs
// an API server and a client, which is the least that any controller costs.
const bareNamespace = "bare"

const bareSingles = 100

// bareSlices is the time from the write of such a slice to its watch event.
func (b *Bench) bareSlices(ctx context.Context) ([]time.Duration, error) {
	return b.bare(ctx, b.hub, &discoveryv1.EndpointSliceList{}, func(turn int) error {
		return update(ctx, b.hub, bareSlice(turn))
	})
}

// bareRoutes is the time from the write of a route that names no Gateway of ours
// to its watch event.
func (b *Bench) bareRoutes(ctx context.Context) ([]time.Duration, error) {
	s := service{namespace: bareNamespace, name: "bare"}
	o := s.route(0)
	o.Spec.ParentRefs[0].Name = "none"
	if err := create(ctx, b.hub, o); err != nil {
		return nil, err
	}
	return b.bare(ctx, b.hub, &gatewayv1.HTTPRouteList{}, func(turn int) error {
		return b.hub.Patch(ctx, s.route(0), headerPatch(turn))
	})
}

func bareSlice(turn int) *discoveryv1.EndpointSlice {
	s := service{namespace: bareNamespace, name: "bare"}.memberSlice(turn)
	s.Labels = nil
	return s
}

// update writes a slice, and creates it if it does not exist.
func update(ctx context.Context, c client.Client, o *discoveryv1.EndpointSlice) error {
	err := c.Update(ctx, o.DeepCopy())
	if client.IgnoreNotFound(err) == nil && err != nil {
		return c.Create(ctx, o)
	}
	return err
}

// bare measures single writes until a watch of the bare namespace has them.
func (b *Bench) bare(ctx context.Context, c client.WithWatch, list client.ObjectList, write func(turn int) error) ([]time.Duration, error) {
	return seen(ctx, func() (watch.Interface, error) { return c.Watch(ctx, list, client.InNamespace(bareNamespace)) }, write)
}

// seen measures single writes of one object until a watch has them. The first write is not measured.
func seen(ctx context.Context, watching func() (watch.Interface, error), write func(turn int) error) ([]time.Duration, error) {
	if err := write(0); err != nil {
		return nil, err
	}
	w, err := watching()
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	if err := drain(ctx, w); err != nil {
		return nil, err
	}
	var out []time.Duration
	for i := range bareSingles {
		began := time.Now()
		if err := write(i + 1); err != nil { // each differs from the one before: an equal one is no event
			return nil, err
		}
		if _, err := next(ctx, w); err != nil {
			return nil, err
		}
		out = append(out, time.Since(began))
		if err := pause(ctx, gap/2); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bareRelay is the shortest way from a slice in the member to one on the hub:
// a watch there, one write here, a watch here.
func (b *Bench) bareRelay(ctx context.Context) ([]time.Duration, error) {
	source, err := b.member.Watch(ctx, &discoveryv1.EndpointSliceList{}, client.InNamespace(bareNamespace))
	if err != nil {
		return nil, err
	}
	defer source.Stop()
	if err := update(ctx, b.member, bareSlice(0)); err != nil {
		return nil, err
	}
	if err := drain(ctx, source); err != nil {
		return nil, err
	}
	return b.bare(ctx, b.hub, &discoveryv1.EndpointSliceList{}, func(turn int) error {
		if turn > 0 { // the first one only makes the object on the hub
			if err := update(ctx, b.member, bareSlice(turn)); err != nil {
				return err
			}
			if _, err := next(ctx, source); err != nil {
				return err
			}
		}
		return update(ctx, b.hub, bareSlice(turn))
	})
}

func next(ctx context.Context, w watch.Interface) (watch.Event, error) {
	select {
	case e, open := <-w.ResultChan():
		if !open || e.Type == watch.Error {
			return e, fmt.Errorf("a watch ended: %v", e.Object)
		}
		return e, nil
	case <-ctx.Done():
		return watch.Event{}, fmt.Errorf("wait for a watch event: %w", ctx.Err())
	}
}

// drain discards the events of objects that existed before.
func drain(ctx context.Context, w watch.Interface) error {
	for {
		select {
		case <-w.ResultChan():
		case <-time.After(300 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
