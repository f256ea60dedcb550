package apply

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Object applies object without its status as manager, and takes over fields
// that others wrote. Afterwards object is what the API server stored. An error
// wraps the API server's answer once.
func Object(ctx context.Context, c client.Client, manager string, object client.Object, options ...client.PatchOption) error {
	body, err := bodyOf(c, object)
	if err != nil {
		return err
	}
	delete(body, "status")
	key := client.ObjectKeyFromObject(object)
	if err := c.Patch(ctx, object, patch(body), append(options, client.FieldOwner(manager), client.ForceOwnership)...); err != nil {
		return fmt.Errorf("apply %s %s: %w", body["kind"], key, err)
	}
	return nil
}

// bodyOf returns object as a request has it: with its kind, and without the
// fields that only the API server writes.
func bodyOf(c client.Client, object client.Object) (map[string]any, error) {
	gvk, err := apiutil.GVKForObject(object, c.Scheme())
	if err != nil {
		return nil, fmt.Errorf("kind of %T: %w", object, err)
	}
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", gvk.Kind, client.ObjectKeyFromObject(object), err)
	}
	body["apiVersion"], body["kind"] = gvk.GroupVersion().String(), gvk.Kind
	if meta, ok := body["metadata"].(map[string]any); ok {
		for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"} {
			delete(meta, field)
		}
	}
	return body, nil
}

// patch is the body of a server-side apply request.
type patch map[string]any

// Type is the patch's content type.
func (patch) Type() types.PatchType { return types.ApplyPatchType }

// Data is the patch as JSON.
func (p patch) Data(client.Object) ([]byte, error) { return json.Marshal(p) }
