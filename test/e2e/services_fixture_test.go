package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
)

// member is a cluster whose objects a test reads and writes.
type member struct {
	*lab.Cluster
	api client.Client
}

// memberNames are the three clusters of the fleet; the first two are in one region.
var memberNames = []string{"us-west", "us-east", "eu-west"}

// shared is one service that clusters share: "hello" in a namespace of its own,
// which every member has.
type shared struct {
	testkit.T
	namespace       string
	west, east, far member
}

var notInNames = regexp.MustCompile("[^A-Za-z0-9]+")

// uses is how often each namespace was made: a test that is repeated (-test.count) has a new one, because the last may still
// be ending.
var uses = map[string]int{}

func newShared(t *testing.T) *shared {
	t.Helper()
	s := &shared{T: testkit.T{TB: t}}
	s.namespace = strings.ToLower("hello-" + notInNames.ReplaceAllString(t.Name()[strings.LastIndex(t.Name(), "/")+1:], "-"))
	if uses[s.namespace]++; uses[s.namespace] > 1 {
		s.namespace += fmt.Sprint("-", uses[s.namespace])
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, mcsv1beta1.Install} {
		s.Must(add(scheme))
	}
	for name, m := range map[string]*member{"us-west": &s.west, "us-east": &s.east, "eu-west": &s.far} {
		m.Cluster = clusterNamed(t, name)
		var err error
		m.api, err = client.New(m.REST, client.Options{Scheme: scheme})
		s.Must(err)
	}
	for _, m := range s.all() {
		s.makeNamespace(m)
	}
	return s
}

// wait asks until the answer is yes.
func (s *shared) wait(what string, ask func() (ok bool, seen any)) {
	s.Helper()
	testkit.EventuallySeen(s, what, ask)
}

func (s *shared) all() []member { return []member{s.west, s.east, s.far} }

func (s *shared) makeNamespace(m member) {
	s.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	s.Must(m.api.Create(s.Context(), namespace))
	s.Cleanup(func() { _ = m.api.Delete(context.WithoutCancel(s.Context()), namespace) })
}

func (s *shared) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.namespace, Name: "hello", Labels: map[string]string{"own": "label"}, Annotations: map[string]string{"own": "annotation"}}
}

func tcp(name string, port int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, Protocol: corev1.ProtocolTCP}
}

// service makes the Service, with ports http 80 and dns 53/UDP unless edit says otherwise.
func (s *shared) service(m member, edit ...func(*corev1.Service)) *corev1.Service {
	s.Helper()
	service := &corev1.Service{ObjectMeta: s.meta(), Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "hello"},
		Ports:    []corev1.ServicePort{tcp("http", 80), {Name: "dns", Port: 80, Protocol: corev1.ProtocolUDP}},
	}}
	for _, e := range edit {
		e(service)
	}
	s.Must(m.api.Create(s.Context(), service))
	return service
}

func (s *shared) editService(m member, edit func(*corev1.Service)) {
	s.Helper()
	service := &corev1.Service{}
	s.Must(m.api.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "hello"}, service))
	edit(service)
	s.Must(m.api.Update(s.Context(), service))
}

func (s *shared) export(m member, edit ...func(*mcsv1beta1.ServiceExport)) {
	s.Helper()
	export := &mcsv1beta1.ServiceExport{ObjectMeta: s.meta()}
	for _, e := range edit {
		e(export)
	}
	s.Must(m.api.Create(s.Context(), export))
}

func (s *shared) unexport(m member) {
	s.Helper()
	s.Must(m.api.Delete(s.Context(), &mcsv1beta1.ServiceExport{ObjectMeta: s.meta()}))
}

// serve makes and exports the Service.
func (s *shared) serve(m member, edit ...func(*corev1.Service)) {
	s.Helper()
	s.service(m, edit...)
	s.export(m)
}

// serveSecond exports from one more cluster, once the first one's import is there: who is the senior is clear.
func (s *shared) serveSecond(m member, edit ...func(*corev1.Service)) {
	s.Helper()
	s.imported(s.west, "the first export", always)
	s.serve(m, edit...)
}

func always(*mcsv1beta1.ServiceImport) bool { return true }

// imported waits until a member's ServiceImport is as expected.
func (s *shared) imported(m member, what string, is func(*mcsv1beta1.ServiceImport) bool) *mcsv1beta1.ServiceImport {
	s.Helper()
	found := &mcsv1beta1.ServiceImport{}
	s.wait(fmt.Sprintf("the ServiceImport in %s: %s", m.Name, what), func() (bool, any) {
		found = &mcsv1beta1.ServiceImport{}
		err := m.api.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "hello"}, found)
		return err == nil && is(found), fmt.Sprintf("%v %+v %+v", err, found.Spec, found.Status)
	})
	return found
}

func (s *shared) noImport(m member) {
	s.Helper()
	s.Eventually("no ServiceImport in "+m.Name, func() bool {
		err := m.api.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "hello"}, &mcsv1beta1.ServiceImport{})
		return apierrors.IsNotFound(err)
	})
}

// says waits until a ServiceExport has a condition, whose reason and message have all parts.
func (s *shared) says(m member, kind mcsv1beta1.ServiceExportConditionType, status metav1.ConditionStatus, parts ...string) {
	s.Helper()
	s.wait(fmt.Sprintf("the ServiceExport in %s to say %s=%s %q", m.Name, kind, status, parts), func() (bool, any) {
		export := &mcsv1beta1.ServiceExport{}
		if err := m.api.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "hello"}, export); err != nil {
			return false, err
		}
		c := meta.FindStatusCondition(export.Status.Conditions, string(kind))
		if c == nil || c.Status != status {
			return false, export.Status.Conditions
		}
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(c.Reason+" "+c.Message, p) }), *c
	})
}

// conflict waits until each of these exports says Conflict for a reason.
func (s *shared) conflict(reason mcsv1beta1.ServiceExportConditionReason, exporters ...member) {
	s.Helper()
	for _, m := range exporters {
		s.says(m, mcsv1beta1.ServiceExportConditionConflict, metav1.ConditionTrue, string(reason))
	}
}

func (s *shared) noConflict(exporters ...member) {
	s.Helper()
	for _, m := range exporters {
		s.says(m, mcsv1beta1.ServiceExportConditionConflict, metav1.ConditionFalse)
	}
}

// slices are a member's imported slices with endpoints.
func (s *shared) slices(m member) []discoveryv1.EndpointSlice {
	s.Helper()
	var list discoveryv1.EndpointSliceList
	s.Must(m.api.List(s.Context(), &list, client.InNamespace(s.namespace), client.MatchingLabels{mcsv1beta1.LabelServiceName: "hello"}))
	return slices.DeleteFunc(list.Items, func(e discoveryv1.EndpointSlice) bool { return len(e.Endpoints) == 0 })
}

// portsOf are a ServiceImport's ports as text, sorted: "http 80/TCP".
func portsOf(i *mcsv1beta1.ServiceImport) string {
	var all []string
	for _, p := range i.Spec.Ports {
		all = append(all, fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func portsAre(want string) func(*mcsv1beta1.ServiceImport) bool {
	return func(i *mcsv1beta1.ServiceImport) bool { return portsOf(i) == want }
}

func clustersAre(want ...string) func(*mcsv1beta1.ServiceImport) bool {
	return func(i *mcsv1beta1.ServiceImport) bool {
		var got []string
		for _, c := range i.Status.Clusters {
			got = append(got, c.Cluster)
		}
		slices.Sort(got)
		return slices.Equal(got, slices.Sorted(slices.Values(want)))
	}
}
