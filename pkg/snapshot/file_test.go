package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
)

var testHeader = header{Format: fileFormat, Program: "v1", Kind: "some"}

const large = 1 << 20

func secrets() []runtime.Object {
	return []runtime.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", ResourceVersion: "7"}, Data: map[string][]byte{"tls.key": {0, 1, 255}}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "empty"}},
	}
}

func readSecrets(path string, want header) ([]runtime.Object, error) {
	return readFile(path, want, time.Hour, func() runtime.Object { return &corev1.Secret{} })
}

// Objects come back as they were, also values that are false or empty.
func TestObjectsComeBack(t *testing.T) {
	for name, test := range map[string]struct {
		objects   []runtime.Object
		newObject func() runtime.Object
	}{
		"protobuf": {secrets(), func() runtime.Object { return &corev1.Secret{} }},
		"slices": {[]runtime.Object{&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](0)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Zone: ptr.To(""), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}}}}},
			func() runtime.Object { return &discoveryv1.EndpointSlice{} }},
		"JSON": {[]runtime.Object{&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west", Generation: 3},
			Spec: v1alpha1.MemberClusterSpec{Accepted: true, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, EndpointCIDRs: []string{"10.1.0.0/16"}}}},
			func() runtime.Object { return &v1alpha1.MemberCluster{} }},
		"none": {nil, nil},
	} {
		path := filepath.Join(t.TempDir(), "file")
		size, err := writeFile(path, testHeader, test.objects, large)
		testkit.Must(t, err)
		info, err := os.Stat(path)
		testkit.Must(t, err)
		if info.Mode() != 0o600 || info.Size() != size+4 {
			t.Errorf("%s: mode %v, %d bytes, said %d and the checksum", name, info.Mode(), info.Size(), size)
		}
		got, err := readFile(path, testHeader, time.Hour, test.newObject)
		testkit.Must(t, err)
		if diff := cmp.Diff(test.objects, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A file that was cut off or changed anywhere is not read, and says so.
func TestDamagedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	_, err := writeFile(path, testHeader, secrets(), large)
	testkit.Must(t, err)
	whole, err := os.ReadFile(path)
	testkit.Must(t, err)
	for i := range whole {
		changed := append([]byte{}, whole...)
		changed[i] ^= 0x20
		for what, content := range map[string][]byte{"cut off": whole[:i], "changed": changed} {
			testkit.Must(t, os.WriteFile(path, content, 0o600))
			if got, err := readSecrets(path, testHeader); err == nil {
				t.Errorf("%s at byte %d of %d: read as %v", what, i, len(whole), got)
			}
		}
	}
}

// A file of another program, an old one and one that is not there are not read.
func TestFilesThatDoNotCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	_, err := writeFile(path, testHeader, secrets(), large)
	testkit.Must(t, err)
	expect := func(h header, want string) {
		t.Helper()
		if _, err := readSecrets(path, h); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	other := testHeader
	other.Program = "v2"
	expect(other, "it is of another program")
	other = testHeader
	other.Format++
	expect(other, "it is of another program")
	before := time.Now().Add(-2 * time.Hour)
	testkit.Must(t, os.Chtimes(path, before, before))
	expect(testHeader, "it is 2h0m0s old, and counts for 1h0m0s")
	testkit.Must(t, os.Remove(path))
	expect(testHeader, "no such file")
}

// What does not fit is not written, and leaves the old file and nothing else.
func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	_, err := writeFile(path, testHeader, secrets(), large)
	testkit.Must(t, err)
	if _, err := writeFile(path, testHeader, secrets(), 100); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v", err)
	}
	got, err := readSecrets(path, testHeader)
	files, _ := os.ReadDir(dir)
	if err != nil || len(got) != 2 || len(files) != 1 {
		t.Errorf("afterwards %d objects, %v, %d files", len(got), err, len(files))
	}
}

// The slices of 150,000 endpoints.
func BenchmarkWrite(b *testing.B) {
	var objects []runtime.Object
	for i := range 3000 {
		s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-west", Name: fmt.Sprintf("store-%d-abcdef", i), ResourceVersion: "123456",
			UID: "3e0a1b7e-0000-4000-8000-000000000000", Labels: map[string]string{v1alpha1.LabelServiceName: "store", v1alpha1.LabelServiceNamespace: "shop"}},
			Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}}}
		for e := range 50 {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", i%256, e)}, Zone: ptr.To("us-a"),
				Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}})
		}
		objects = append(objects, s)
	}
	path := filepath.Join(b.TempDir(), "file")
	b.ReportAllocs()
	for b.Loop() {
		size, err := writeFile(path, testHeader, objects, maxSize)
		testkit.Must(b, err)
		b.ReportMetric(float64(size), "size")
	}
}
