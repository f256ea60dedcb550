package serviceexport

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/condition"
)

// A label that no object can carry is left out and reported. The other labels and
// the export itself are not affected.
func TestInvalidMetadataIsReported(t *testing.T) {
	offer := Describe(Input{
		Cluster: "us-west",
		Export: &mcsv1beta1.ServiceExport{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec: mcsv1beta1.ServiceExportSpec{
				ExportedLabels: map[string]string{"team": "shop", "not a key": "x", "value": "has spaces", "long": strings.Repeat("x", 64),
					"multicluster.kubernetes.io/service-name": "evil", "app.kubernetes.io/managed-by": "evil", "app.kubernetes.io/name": "web"},
				ExportedAnnotations: map[string]string{"Note.example.com/Text": "any text at all", "a/b/c": "x", "z": strings.Repeat("x", maxAnnotationBytes),
					"kubectl.kubernetes.io/last-applied-configuration": "{}", "Crossway.dev/note": "x"},
			},
		},
		Service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}},
	})
	if offer.Spec == nil || !maps.Equal(offer.Spec.Labels, map[string]string{"team": "shop", "app.kubernetes.io/name": "web"}) ||
		!maps.Equal(offer.Spec.Annotations, map[string]string{"Note.example.com/Text": "any text at all"}) {
		t.Fatalf("offered %+v", offer.Spec)
	}
	k := slices.IndexFunc(offer.Conditions, func(c condition.Condition) bool { return c.Type == condition.MetadataExported })
	if k < 0 {
		t.Fatal("there is no condition MetadataExported")
	}
	for _, key := range []string{"not a key", "value", "long", "a/b/c", "z"} {
		if !strings.Contains(offer.Conditions[k].Message, `"`+key+`"`) {
			t.Errorf("%q is missing in: %s", key, offer.Conditions[k].Message)
		}
	}
}
