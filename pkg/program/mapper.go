package program

import (
	"cmp"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Kind is one kind that a program reads or writes.
type Kind struct {
	Object        client.Object
	ClusterScoped bool
	// Resource is the plural, where it is not the one that Kubernetes would guess.
	Resource string
}

// Mapper is the MapperProvider of a manager's options, with the kinds that a program
// knows. It asks no API server, so that a program starts while its API server does
// not answer, and where a CRD is missing.
func Mapper(scheme *runtime.Scheme, kinds []Kind) func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	return func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
		var gvks []schema.GroupVersionKind
		var versions []schema.GroupVersion
		for _, k := range kinds {
			gvk, err := apiutil.GVKForObject(k.Object, scheme)
			if err != nil {
				return nil, fmt.Errorf("kind of %T: %w", k.Object, err)
			}
			gvks, versions = append(gvks, gvk), append(versions, gvk.GroupVersion())
		}
		mapper := meta.NewDefaultRESTMapper(versions)
		for i, k := range kinds {
			scope := meta.RESTScopeNamespace
			if k.ClusterScoped {
				scope = meta.RESTScopeRoot
			}
			plural, singular := meta.UnsafeGuessKindToResource(gvks[i])
			plural.Resource = cmp.Or(k.Resource, plural.Resource)
			mapper.AddSpecific(gvks[i], plural, singular, scope)
			mapper.Add(gvks[i].GroupVersion().WithKind(gvks[i].Kind+"List"), scope) // a cache of some namespaces asks for it
		}
		return mapper, nil
	}
}
