package agent

import (
	"fmt"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What is remembered of a service is about objects that the member has, or that the hub reported as deleted until that is
// done: slices that come and go for ever leave nothing.
func TestSilenceIsBounded(t *testing.T) {
	s, key, now := newSilence(), types.NamespacedName{Namespace: "shop", Name: "web"}, time.Now()
	last := ""
	for i := range 1000 {
		last = fmt.Sprint("web-", i)
		s.left(key, last, now) // the hub lacks it
		s.keepsOnly(key, []discoveryv1.EndpointSlice{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: last}}})
	}
	if n := len(s.services[key].missing); n != 1 {
		t.Errorf("%d slices are remembered as missing, and the member has one", n)
	}
	s.serves(key, last)
	for i := range 1000 {
		name := fmt.Sprint("web-", i)
		s.reports(key, name)
		s.obeyed(key, s.ended(key))
	}
	s.left(key, theImport, now)
	s.removed(key)
	if len(s.services) != 0 {
		t.Errorf("of a service that is gone: %+v", s.services[key])
	}
}
