package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Status applies object's status and nothing else of it. Conditions that
// manager applied before and that are not in it are removed; those of other
// managers stay. An object that no longer exists is no error.
func Status(ctx context.Context, c client.Client, manager string, object client.Object) error {
	body, err := bodyOf(c, object)
	if err != nil {
		return err
	}
	status := patch{
		"apiVersion": body["apiVersion"], "kind": body["kind"], "status": body["status"],
		"metadata": map[string]any{"name": object.GetName(), "namespace": object.GetNamespace()},
	}
	key := client.ObjectKeyFromObject(object)
	err = c.Status().Patch(ctx, object, status, client.FieldOwner(manager), client.ForceOwnership)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of %s %s: %w", body["kind"], key, err)
	}
	return nil
}

// SameConditions tells whether stored has exactly the wanted conditions, in any
// order. Of stored only the owned types count; without any, all types do.
func SameConditions(stored, wanted []metav1.Condition, owned ...string) bool {
	byType := func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) }
	have := slices.SortedFunc(slices.Values(stored), byType)
	if len(owned) > 0 {
		have = slices.DeleteFunc(have, func(c metav1.Condition) bool { return !slices.Contains(owned, c.Type) })
	}
	return apiequality.Semantic.DeepEqual(have, slices.SortedFunc(slices.Values(wanted), byType))
}
