package serviceexport

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxAnnotations is how many bytes an API server takes of an object's
// annotations, keys and values (apimachinery, TotalAnnotationSizeLimitB).
const maxAnnotations = 256 << 10

// reserved are the prefixes of keys that say something to those who run the
// fleet, and not of a service.
var reserved = []string{"crossway.dev", "kubectl.kubernetes.io", "multicluster.kubernetes.io"}

// Labels gives the exported labels that an object can carry and anybody may
// set, and the keys of the others, sorted. ServiceExport's own schema takes any
// text.
func Labels(exported map[string]string) (valid map[string]string, invalid []string) {
	return split(exported, func(key, value string) bool {
		return key != "app.kubernetes.io/managed-by" && len(validation.IsQualifiedName(key)) == 0 && len(validation.IsValidLabelValue(value)) == 0
	})
}

// Annotations does the same for annotations. Of too many bytes those that come
// last by key are left out.
func Annotations(exported map[string]string) (valid map[string]string, invalid []string) {
	room := maxAnnotations
	return split(exported, func(key, value string) bool {
		size := len(key) + len(value)
		if len(validation.IsQualifiedName(strings.ToLower(key))) > 0 || size > room {
			return false
		}
		room -= size
		return true
	})
}

func split(all map[string]string, ok func(key, value string) bool) (valid map[string]string, invalid []string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		prefix, _, _ := strings.Cut(key, "/")
		if slices.Contains(reserved, strings.ToLower(prefix)) || !ok(key, all[key]) {
			invalid = append(invalid, key)
			continue
		}
		if valid == nil {
			valid = map[string]string{}
		}
		valid[key] = all[key]
	}
	return valid, invalid
}
