package serviceexport

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxAnnotationBytes is the most that the hub takes of an export's annotations,
// keys and values together (a rule of MemberExport's CRD).
const maxAnnotationBytes = 16 << 10

// reservedPrefixes are the prefixes of keys that have a meaning for Crossway or
// Kubernetes instead of describing a service.
var reservedPrefixes = []string{"crossway.dev", "kubectl.kubernetes.io", "multicluster.kubernetes.io"}

// Labels returns the exported labels that are valid on any object and not
// reserved, and the keys of the others, sorted. ServiceExport's own schema takes
// any text.
func Labels(exported map[string]string) (valid map[string]string, invalid []string) {
	return split(exported, func(key, value string) bool {
		return key != "app.kubernetes.io/managed-by" && len(validation.IsQualifiedName(key)) == 0 && len(validation.IsValidLabelValue(value)) == 0
	})
}

// Annotations does the same for annotations. If they are too many bytes, the last
// by key count as invalid.
func Annotations(exported map[string]string) (valid map[string]string, invalid []string) {
	bytesLeft := maxAnnotationBytes
	return split(exported, func(key, value string) bool {
		size := len(key) + len(value)
		if len(validation.IsQualifiedName(strings.ToLower(key))) > 0 || size > bytesLeft {
			return false
		}
		bytesLeft -= size
		return true
	})
}

func split(all map[string]string, ok func(key, value string) bool) (valid map[string]string, invalid []string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		prefix, _, _ := strings.Cut(key, "/")
		if slices.Contains(reservedPrefixes, strings.ToLower(prefix)) || !ok(key, all[key]) {
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
