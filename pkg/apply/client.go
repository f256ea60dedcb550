package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
)

// ClientOf is a client that reads from a cluster's cache and waits there for
// its own writes, key by key: a shell that compares before it writes then
// writes a change once, also where its key comes again at once.
func ClientOf(c cluster.Cluster) (client.Client, error) {
	wait := true
	waiting, err := client.New(c.GetConfig(), client.Options{
		HTTPClient: c.GetHTTPClient(), Scheme: c.GetScheme(), Mapper: c.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: c.GetCache(), EnableReadYourWritesConsistency: &wait},
	})
	if err != nil {
		return nil, fmt.Errorf("client that reads its own writes: %w", err)
	}
	return waiting, nil
}

// Remove deletes what a cache has of an object; one that came anew meanwhile
// stays, and one that is gone is no error.
func Remove(ctx context.Context, c client.Client, have client.Object) error {
	uid := have.GetUID()
	return client.IgnoreNotFound(c.Delete(ctx, have, client.Preconditions{UID: &uid}))
}

// Found reads an object into into; one that does not exist is nil, without an error.
func Found[T client.Object](ctx context.Context, from client.Reader, key types.NamespacedName, into T) (T, error) {
	var none T
	if err := from.Get(ctx, key, into); err != nil {
		return none, client.IgnoreNotFound(err)
	}
	return into, nil
}
