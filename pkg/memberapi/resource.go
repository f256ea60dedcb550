package memberapi

import (
	"bytes"
	"encoding/json"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Resource is one kind of the API.
type Resource struct {
	schema.GroupVersion
	Kind string
	Name string // in paths, plural
}

// The resources of the API.
var (
	ServiceImports = Resource{schema.GroupVersion(mcsv1beta1.GroupVersion), "ServiceImport", "serviceimports"}
	EndpointSlices = Resource{discoveryv1.SchemeGroupVersion, "EndpointSlice", "endpointslices"}
)

// typeMeta is how objects of the resource say what they are.
func (r Resource) typeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: r.GroupVersion.String(), Kind: r.Kind}
}

// head is how the JSON of every object of the resource begins.
func (r Resource) head() string {
	return fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{`, r.Kind, r.GroupVersion.String())
}

// content is an object's JSON without its head, its version and its annotations,
// which are added when it is sent. Equal objects have equal content.
type content struct {
	annotations []byte // of their JSON, what is in the braces
	rest        []byte
}

// equal compares.
func (c content) equal(other content) bool {
	return bytes.Equal(c.annotations, other.annotations) && bytes.Equal(c.rest, other.rest)
}

// contentOf encodes an object that has a name, and may be changed.
func (r Resource) contentOf(object metav1.Object) content {
	var c content
	if annotations := object.GetAnnotations(); len(annotations) > 0 {
		text, _ := json.Marshal(annotations) // of a map of strings it does not fail
		c.annotations = text[1 : len(text)-1]
		object.SetAnnotations(nil)
	}
	text, err := json.Marshal(object)
	rest, ok := bytes.CutPrefix(text, []byte(r.head()))
	if err != nil || !ok {
		panic(fmt.Sprintf("encode %T: %v", object, err)) // that depends on the type alone
	}
	c.rest = rest
	return c
}

// AppendJSON appends an object as a reader sees it to text.
func (r *Reader) AppendJSON(text []byte, l *Log, e Event) []byte {
	c := e.Object.identity
	if e.Type != Deleted {
		c = e.Object.encoded()
	}
	text = append(text, l.head...)
	text = append(text, `"resourceVersion":"`...)
	text = e.Object.append(text)
	text = append(text, `",`...)
	if l.Resource == ServiceImports && e.Type != Deleted {
		text = append(text, `"annotations":{"`+v1alpha1.AnnotationRegion+`":"`...)
		text = append(text, r.member.Spec.Region...) // a DNS label
		text = append(text, '"')
		if len(c.annotations) > 0 {
			text = append(append(text, ','), c.annotations...)
		}
		text = append(text, "},"...)
	}
	return append(text, c.rest...)
}
