package memberapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// story is one fleet, and the watches that a story opened.
type story struct {
	t       *testing.T
	state   *State
	now     time.Time
	members []v1alpha1.MemberCluster
	changes Changes
	watches map[string][2]*Watch // of imports and of slices, by member
}

// The stories of State: what changes on the hub, and what members read of it.
func TestStories(t *testing.T) {
	s := &story{t: t, now: noon, watches: map[string][2]*Watch{}}
	s.state = New(Start(noon, 7), []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")})
	datadriven.RunTest(t, "testdata/state.txt", func(_ *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "apply":
			s.changes = Changes{Services: map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{}, Slices: map[SliceKey]*discoveryv1.EndpointSlice{}}
			for line := range strings.Lines(d.Input) {
				s.read(strings.Fields(line))
			}
			members := slices.Clone(s.members)
			s.changes.Members = &members
			s.state.Apply(s.changes, s.now)
			return ""
		case "watch":
			reader := s.state.Reader(fleet.ClusterName(d.CmdArgs[0].Key))
			if reader == nil {
				return "no reader\n"
			}
			s.watches[d.CmdArgs[0].Key] = [2]*Watch{NewWatch(reader, s.state.Imports, ""), NewWatch(reader, s.state.Slices, "")}
		case "read":
		default:
			t.Fatalf("unknown command %q", d.Cmd)
		}
		return s.next(d.CmdArgs[0].Key)
	})
}

// next is all that a member's watches return.
func (s *story) next(member string) string {
	var b strings.Builder
	for _, w := range s.watches[member] {
		for more := true; more; {
			var events []Event
			var err error
			events, more, err = w.Next(s.state)
			for _, e := range events {
				fmt.Fprintln(&b, s.describe(w, e))
			}
			switch {
			case errors.Is(err, ErrExpired):
				fmt.Fprintln(&b, w.log.Resource.Name, "expired: list again")
			case err != nil:
				fmt.Fprintln(&b, w.log.Resource.Name, err)
			}
		}
	}
	return b.String()
}

func (s *story) describe(w *Watch, e Event) string {
	if e.Type == Listed {
		return w.log.Resource.Name + " are complete"
	}
	text := w.reader.AppendJSON(nil, w.log, e)
	if w.log.Resource == ServiceImports {
		var i mcsv1beta1.ServiceImport
		testkit.Must(s.t, json.Unmarshal(text, &i))
		out := fmt.Sprintf("%s import %s/%s region=%s", e.Type, i.Namespace, i.Name, i.Annotations[v1alpha1.AnnotationRegion])
		for _, p := range i.Spec.Ports {
			out += fmt.Sprintf(" %s:%d/%s", p.Name, p.Port, p.Protocol)
		}
		for _, c := range i.Status.Clusters {
			out += " " + c.Cluster
		}
		return out
	}
	var slice discoveryv1.EndpointSlice
	testkit.Must(s.t, json.Unmarshal(text, &slice))
	out := fmt.Sprintf("%s slice %s/%s of %s in %s", e.Type, slice.Namespace, slice.Labels[mcsv1beta1.LabelServiceName],
		slice.Labels[mcsv1beta1.LabelSourceCluster], slice.Labels[v1alpha1.LabelSourceRegion])
	for _, p := range slice.Ports {
		out += fmt.Sprintf(" %s=%d", *p.Name, *p.Port)
	}
	for _, x := range slice.Endpoints {
		out += " " + strings.Join(x.Addresses, "+") + "@" + ptr.Deref(x.Zone, "")
	}
	return out
}

// read reads one line of an apply.
func (s *story) read(args []string) {
	values := map[string]string{}
	var rest []string
	for _, a := range args[2:] {
		if key, value, ok := strings.Cut(a, "="); ok {
			values[key] = value
		} else {
			rest = append(rest, a)
		}
	}
	switch args[0] {
	case "member":
		s.members = slices.DeleteFunc(s.members, func(m v1alpha1.MemberCluster) bool { return m.Name == args[1] })
		if values["gone"] != "" {
			return
		}
		m := v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: args[1], UID: types.UID(args[1] + values["uid"])},
			Spec: v1alpha1.MemberClusterSpec{Accepted: values["accepted"] != "no", Region: values["region"], Zone: values["zone"], EndpointCIDRs: strings.Split(values["cidrs"], ",")}}
		m.Status.Credential = &v1alpha1.MemberCredential{ID: "aaaaaaaaaa", Kind: v1alpha1.CredentialCertificate}
		m.Spec.Exports.Namespaces = patternsOf(values["exports"])
		m.Spec.Exports.MaxEndpointsPerService = int32(number(s.t, values["limit"]))
		if imports, ok := values["imports"]; ok {
			m.Spec.Imports = &v1alpha1.MemberImportRules{Namespaces: patternsOf(imports)}
		}
		s.members = append(s.members, m)
	case "service":
		namespace, name, _ := strings.Cut(args[1], "/")
		s.changes.Services[fleet.ServiceName{Namespace: namespace, Name: name}] = serviceSpec(s.t, namespace, name, values)
	case "slice":
		cluster, name, _ := strings.Cut(args[1], "/")
		key := SliceKey{Namespace: v1alpha1.MemberNamespace(cluster), Name: name}
		s.changes.Slices[key] = nil
		if values["of"] != "" {
			s.changes.Slices[key] = pushed(key, values, rest)
		}
	default:
		s.t.Fatalf("unknown object %q", args[0])
	}
}

func patternsOf(text string) (out []v1alpha1.NamespacePattern) {
	for p := range strings.SplitSeq(text, ",") {
		out = append(out, v1alpha1.NamespacePattern(p))
	}
	return out
}

func serviceSpec(t *testing.T, namespace, name string, values map[string]string) *v1alpha1.FleetServiceSpec {
	if values["clusters"] == "" {
		return nil
	}
	spec := &v1alpha1.FleetServiceSpec{Service: v1alpha1.ServiceReference{Namespace: namespace, Name: name}}
	for c := range strings.SplitSeq(values["clusters"], ",") {
		spec.Clusters = append(spec.Clusters, v1alpha1.ExportingCluster{Name: c})
	}
	for p := range strings.SplitSeq(values["ports"], ",") { // http:80 or http:80:us-west
		parts := strings.Split(p, ":")
		port := v1alpha1.FleetServicePort{ServicePort: v1alpha1.ServicePort{Name: parts[0], Protocol: corev1.ProtocolTCP, Port: int32(number(t, parts[1]))}}
		if len(parts) > 2 {
			port.Clusters = parts[2:]
		}
		spec.Ports = append(spec.Ports, port)
	}
	return spec
}

func pushed(key SliceKey, values map[string]string, addresses []string) *discoveryv1.EndpointSlice {
	namespace, name, _ := strings.Cut(values["of"], "/")
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{
		v1alpha1.LabelServiceNamespace: namespace, v1alpha1.LabelServiceName: name, v1alpha1.LabelSourceCluster: "forged"}}, AddressType: discoveryv1.AddressTypeIPv4}
	for p := range strings.SplitSeq(values["ports"], ",") {
		id, target, _ := strings.Cut(p, ":")
		n, _ := strconv.Atoi(target)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &id, Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To(int32(n))})
	}
	for _, a := range addresses {
		address, zone, _ := strings.Cut(a, "@")
		e := discoveryv1.Endpoint{Addresses: []string{address}, NodeName: ptr.To("secret-node"), TargetRef: &corev1.ObjectReference{Name: "secret-pod"}}
		if zone != "" {
			e.Zone = &zone
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func number(t *testing.T, text string) int {
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	testkit.Must(t, err)
	return n
}
