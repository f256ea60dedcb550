package apply

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Object applies all of object but its status, in the name of manager, taking
// over fields that others wrote. Afterwards object is what is stored.
func Object(ctx context.Context, c client.Client, manager string, object client.Object, options ...client.PatchOption) error {
	body, err := bodyOf(c, object)
	if err != nil {
		return err
	}
	delete(body, "status")
	patch, err := patchOf(body)
	if err != nil {
		return err
	}
	return c.Patch(ctx, object, patch, append(options, client.FieldOwner(manager), client.ForceOwnership)...)
}

// Status applies object's status alone. Conditions that manager wrote earlier
// and that are not in it go away; those of others stay.
func Status(ctx context.Context, c client.Client, manager string, object client.Object) error {
	body, err := bodyOf(c, object)
	if err != nil {
		return err
	}
	patch, err := patchOf(map[string]any{
		"apiVersion": body["apiVersion"], "kind": body["kind"], "status": body["status"],
		"metadata": map[string]any{"name": object.GetName(), "namespace": object.GetNamespace()},
	})
	if err != nil {
		return err
	}
	return c.Status().Patch(ctx, object, patch, client.FieldOwner(manager), client.ForceOwnership)
}

// bodyOf is object as a request has it: with its kind, and without what only
// the API server writes.
func bodyOf(c client.Client, object client.Object) (map[string]any, error) {
	gvk, err := apiutil.GVKForObject(object, c.Scheme())
	if err != nil {
		return nil, fmt.Errorf("kind of %T: %w", object, err)
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", gvk.Kind, client.ObjectKeyFromObject(object), err)
	}
	body := map[string]any{}
	if err := json.Unmarshal(data, &body); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", gvk.Kind, client.ObjectKeyFromObject(object), err)
	}
	body["apiVersion"], body["kind"] = gvk.GroupVersion().String(), gvk.Kind
	if meta, ok := body["metadata"].(map[string]any); ok {
		for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"} {
			delete(meta, field)
		}
	}
	return body, nil
}

func patchOf(body map[string]any) (client.Patch, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	return client.RawPatch(types.ApplyPatchType, data), nil
}
