package apply

import (
	"cmp"
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
)

// ClientOf makes a client that reads from a cluster's cache and waits there for
// its own writes, key by key. A controller that compares before it writes then
// writes a change once, also if the key comes again before the cache has seen
// the write.
func ClientOf(c cluster.Cluster) (client.Client, error) {
	waiting, err := client.New(c.GetConfig(), client.Options{
		HTTPClient: c.GetHTTPClient(), Scheme: c.GetScheme(), Mapper: c.GetRESTMapper(),
		Cache: &client.CacheOptions{Reader: c.GetCache(), EnableReadYourWritesConsistency: ptr.To(true)},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client that waits for its own writes: %w", err)
	}
	return waiting, nil
}

// Remove deletes an object that was read from a cache. One that was made anew
// under its name stays, and one that no longer exists is no error.
func Remove(ctx context.Context, c client.Client, have client.Object) error {
	if err := client.IgnoreNotFound(c.Delete(ctx, have, client.Preconditions{UID: ptr.To(have.GetUID())})); err != nil {
		return fmt.Errorf("delete %s %s: %w", kindOf(have), client.ObjectKeyFromObject(have), err)
	}
	return nil
}

// Found reads an object into into. It returns nil, and no error, for an object
// that does not exist.
func Found[T client.Object](ctx context.Context, from client.Reader, key types.NamespacedName, into T) (T, error) {
	var none T
	if err := from.Get(ctx, key, into); apierrors.IsNotFound(err) {
		return none, nil
	} else if err != nil {
		return none, fmt.Errorf("read %s %s: %w", kindOf(into), key, err)
	}
	return into, nil
}

// kindOf is an object's kind, for messages.
func kindOf(o client.Object) string {
	return cmp.Or(o.GetObjectKind().GroupVersionKind().Kind, reflect.TypeOf(o).Elem().Name())
}
