package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
)

// edges revokes credentials of edges.
func (o *revokeOptions) edges(ctx context.Context) error {
	hub, err := o.hub()
	if err != nil {
		return err
	}
	if len(o.credentials) == 0 {
		return whichCredential(ctx, hub, o.pool)
	}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		pool, err := poolOf(ctx, hub, o.pool)
		if err != nil {
			return err
		}
		for _, id := range o.credentials {
			if !slices.Contains(pool.Spec.RevokedCredentials, id) {
				pool.Spec.RevokedCredentials = append(pool.Spec.RevokedCredentials, id)
			}
		}
		return hub.Update(ctx, pool)
	})
	if err != nil {
		return fmt.Errorf("revoke credentials of EdgePool %q: %w", o.pool, err)
	}
	if o.wait > 0 {
		if err := o.progress.wait(ctx, "EdgePool "+o.pool, o.wait, disconnected(hub, o.pool, o.credentials)); err != nil {
			return fmt.Errorf("%w; the hub does it as soon as it runs: see crossway check", err)
		}
	}
	return o.output.print("Revocation", &revokeResult{EdgePool: o.pool, Credentials: o.credentials}, func(out io.Writer) error {
		fmt.Fprintf(out, "no edge of pool %s is connected with %s, and none will be\n", o.pool, list(o.credentials))
		return nil
	})
}

func poolOf(ctx context.Context, hub client.Client, name string) (*v1alpha1.EdgePool, error) {
	var pool v1alpha1.EdgePool
	err := hub.Get(ctx, client.ObjectKey{Name: name}, &pool)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("EdgePool %q does not exist; see kubectl get edgepools", name)
	}
	return &pool, err
}

// whichCredential is the error that lists what could be revoked.
func whichCredential(ctx context.Context, hub client.Client, name string) error {
	pool, err := poolOf(ctx, hub, name)
	if err != nil {
		return err
	}
	var lines []string
	for _, c := range pool.Status.Credentials {
		lines = append(lines, fmt.Sprintf("\n  %s  %d connected, until %s", c.ID, c.Edges, c.ExpirationTime.UTC().Format("2006-01-02 15:04")))
	}
	if len(lines) == 0 {
		lines = []string{" none"}
	}
	return usage("name one with --credential; edges of pool %s are connected with:%s", name, strings.Join(lines, ""))
}

// disconnected is the state of a pool: done once no edge is connected with a credential.
func disconnected(hub client.Client, name string, ids []string) state {
	return func(ctx context.Context) (string, bool, error) {
		pool, err := poolOf(ctx, hub, name)
		if err != nil {
			return "", false, err
		}
		edges := 0
		for _, c := range pool.Status.Credentials {
			if slices.Contains(ids, c.ID) {
				edges += int(c.Edges)
			}
		}
		return fmt.Sprintf("%d edges connected with revoked credentials", edges), edges == 0, nil
	}
}
