package memberapi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Of objects that changed some time ago only what they are made from is kept, and they are read as they were.
func TestOldObjectsAreNotKeptEncoded(t *testing.T) {
	s := New(Start(noon, 7), nil)
	text := bytes.Repeat([]byte{'x'}, 64<<10)
	const objects = 1000
	for i := range objects {
		s.set(s.Slices, fleet.ObjectName{Namespace: "shop", Name: fmt.Sprint(i)}, func() content {
			return content{rest: fmt.Appendf(text[:len(text):len(text)], "%d", i)}
		}, content{}, &Touched{})
	}
	kept, total := 0, 0
	for i := range objects {
		o := s.Slices.Get(fleet.ObjectName{Namespace: "shop", Name: fmt.Sprint(i)})
		kept += len(o.content.rest)
		total += o.size
		if !bytes.HasSuffix(o.encoded().rest, fmt.Append(nil, i)) {
			t.Fatalf("object %d ends with %q", i, o.encoded().rest[len(text):])
		}
	}
	if kept > maxEncoded || kept < maxEncoded/2 || total < objects*len(text) {
		t.Errorf("%d of %d bytes are kept", kept, total)
	}
}

// A version of another replica, or one before a deletion that is forgotten, is expired: its reader would miss changes.
func TestExpiredVersions(t *testing.T) {
	s, later := New(Start(noon, 7), nil), New(Start(noon, 9), nil)
	name := fleet.ObjectName{Namespace: "shop", Name: "web"}
	member := model{}
	for _, state := range []*State{s, later} {
		members := []v1alpha1.MemberCluster{member.member("a", "shop")}
		state.Apply(Changes{Members: &members}, noon)
	}
	write := func(state *State, text string) {
		state.set(state.Slices, name, func() content { return content{rest: []byte(text)} }, content{}, &Touched{})
	}
	read := func(version uint64) error {
		_, _, err := ResumedWatch(s.Reader("a"), s.Slices, "", version).Next(s)
		return err
	}
	write(s, "1")
	write(later, "1")
	before := s.Version()
	write(s, "2")
	if err := read(before); err != nil {
		t.Errorf("its own version: %v", err)
	}
	if err := read(later.Version()); !errors.Is(err, ErrExpired) {
		t.Errorf("another replica's version, within its own: %v", err)
	}
	if err := read(s.Version() + versionStep); !errors.Is(err, ErrExpired) {
		t.Errorf("a version that is yet to come: %v", err)
	}
	s.remove(s.Slices, name, fleet.ServiceName{}, noon, &Touched{})
	s.Apply(Changes{}, noon.Add(deletedAge-1))
	if err := read(before); err != nil {
		t.Errorf("before a deletion that is remembered: %v", err)
	}
	s.Apply(Changes{}, noon.Add(deletedAge))
	if err := read(before); !errors.Is(err, ErrExpired) {
		t.Errorf("before a deletion that is forgotten: %v", err)
	}
}

// A slice of host names is shown to nobody, whatever its names look like: they do not
// count against the limits of a member, and no agent makes such a slice.
func TestSlicesOfNamesAreNotShown(t *testing.T) {
	s := New(Start(noon, 7), nil)
	member := (&model{}).member("a", "shop")
	member.Spec.Exports.Namespaces, member.Spec.EndpointCIDRs = member.Spec.Imports.Namespaces, []string{"10.1.0.0/16"}
	web := fleet.ServiceName{Namespace: "shop", Name: "web"}
	slices := map[SliceKey]*discoveryv1.EndpointSlice{}
	for _, kind := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeFQDN} {
		slice := &discoveryv1.EndpointSlice{AddressType: kind, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}}},
			Ports: []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: ptr.To[int32](8080)}}}
		slice.Namespace, slice.Name = v1alpha1.MemberNamespace("a"), string(kind)
		slice.Labels = map[string]string{v1alpha1.LabelServiceNamespace: web.Namespace, v1alpha1.LabelServiceName: web.Name}
		slices[SliceKey{Namespace: slice.Namespace, Name: slice.Name}] = slice
	}
	spec := &v1alpha1.FleetServiceSpec{Service: v1alpha1.ServiceReference(web), Clusters: []v1alpha1.ExportingCluster{{Name: "a"}},
		Ports: []v1alpha1.FleetServicePort{{ServicePort: v1alpha1.ServicePort{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}}
	s.Apply(Changes{Members: &[]v1alpha1.MemberCluster{member}, Slices: slices, Services: map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{web: spec}}, noon)
	if n := s.Slices.Len(); n != 1 {
		t.Errorf("%d slices", n)
	}
}
