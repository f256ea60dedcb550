package serviceimport

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// The stories of Merge: each line of input is one cluster's export; the output is
// the FleetService and the conditions of each export.
//
// merge begins a service; "then" goes on with it, as the same replica does. "restart" goes
// on with nothing remembered: without=records where the status of every MemberExport is
// lost, without=import where the FleetService is. By default an export's UID is its
// cluster's name, and its generation is 1.
func TestMergeStories(t *testing.T) {
	var last Merged
	datadriven.RunTest(t, "testdata/merge.txt", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "merge" {
			last = Merged{}
		}
		inForce, records := last.Import, map[fleet.ClusterName]v1alpha1.SeenExport{}
		if d.Cmd == "restart" {
			records = last.Seen
		}
		for _, lost := range d.CmdArgs {
			if lost.Vals[0] == "import" {
				inForce = nil
			} else {
				records = nil
			}
		}
		var exports []Export
		for line := range strings.Lines(d.Input) {
			e := readExport(t, strings.Fields(line))
			if record, ok := records[e.Cluster]; ok {
				e.Seen = &record
			}
			exports = append(exports, e)
		}
		last = Merge(exports, inForce)
		slices.Reverse(exports)
		if again := describeMerged(Merge(exports, inForce)); again != describeMerged(last) {
			t.Errorf("another order of the exports gives another import:\n%s", again)
		}
		return describeMerged(last)
	})
}

// readExport reads `us-west at=2 accepted=1 ports=http:80/TCP,grpc:90/TCP/h2c type=Headless ...`.
func readExport(t *testing.T, args []string) Export {
	e := Export{Cluster: fleet.ClusterName(args[0]), Generation: 1, Spec: v1alpha1.MemberExportSpec{
		Service: v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}, ExportUID: args[0],
		ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
	}}
	for _, w := range args[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "at":
			e.Spec.ExportedAt = metav1.NewTime(hour(t, value))
		case "accepted":
			e.AcceptedAt = hour(t, value)
		case "uid":
			e.Spec.ExportUID = value
		case "generation":
			e.Generation = int64(number(t, value))
		case "ports":
			for p := range strings.SplitSeq(value, ",") {
				e.Spec.Ports = append(e.Spec.Ports, readPort(t, p))
			}
		default:
			readProperty(t, &e.Spec.ServiceProperties, key, value)
		}
	}
	return e
}

func readProperty(t *testing.T, p *v1alpha1.ServiceProperties, key, value string) {
	switch key {
	case "type":
		p.Type = v1alpha1.ServiceType(value)
	case "affinity":
		p.SessionAffinity = corev1.ServiceAffinity(value)
	case "timeout":
		seconds := int32(number(t, value))
		p.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	case "internal":
		policy := corev1.ServiceInternalTrafficPolicy(value)
		p.InternalTrafficPolicy = &policy
	case "distribution":
		p.TrafficDistribution = &value
	case "labels":
		p.Labels = pairs(value)
	case "annotations":
		p.Annotations = pairs(value)
	case "families":
		for f := range strings.SplitSeq(value, ",") {
			p.IPFamilies = append(p.IPFamilies, corev1.IPFamily(f))
		}
	default:
		t.Fatalf("unknown argument %q", key)
	}
}

func readPort(t *testing.T, text string) v1alpha1.ServicePort {
	name, rest, _ := strings.Cut(text, ":")
	parts := strings.Split(rest, "/")
	p := v1alpha1.ServicePort{Name: name, Port: int32(number(t, parts[0])), Protocol: corev1.Protocol(parts[1])}
	if len(parts) > 2 {
		p.AppProtocol = &parts[2]
	}
	return p
}

func describeMerged(m Merged) string {
	if m.Import == nil {
		return "no import\n"
	}
	var b strings.Builder
	p := m.Import.ServiceProperties
	fmt.Fprintf(&b, "%s/%s %s", m.Import.Service.Namespace, m.Import.Service.Name, p.Type)
	if p.SessionAffinity != "" {
		fmt.Fprintf(&b, " affinity=%s", p.SessionAffinity)
	}
	if c := p.SessionAffinityConfig; c != nil {
		fmt.Fprintf(&b, " timeout=%d", *c.ClientIP.TimeoutSeconds)
	}
	if p.InternalTrafficPolicy != nil {
		fmt.Fprintf(&b, " internal=%s", *p.InternalTrafficPolicy)
	}
	if p.TrafficDistribution != nil {
		fmt.Fprintf(&b, " distribution=%s", *p.TrafficDistribution)
	}
	for _, set := range []map[string]string{p.Labels, p.Annotations} {
		if len(set) > 0 {
			fmt.Fprintf(&b, " %v", set)
		}
	}
	if len(p.IPFamilies) > 0 {
		fmt.Fprintf(&b, " families=%v", p.IPFamilies)
	}
	fmt.Fprintf(&b, " from %s", placesOf(m.Import.Clusters))
	if len(m.Import.Former) > 0 {
		fmt.Fprintf(&b, ", formerly %s", placesOf(m.Import.Former))
	}
	b.WriteString("\n")
	for _, port := range m.Import.Ports {
		fmt.Fprintf(&b, "  port %q %s", port.Name, portIDOf(port.ServicePort))
		if port.AppProtocol != nil {
			fmt.Fprintf(&b, " (%s)", *port.AppProtocol)
		}
		if port.Clusters != nil {
			fmt.Fprintf(&b, " in %s only", strings.Join(port.Clusters, ", "))
		}
		b.WriteString("\n")
	}
	for _, cluster := range slices.Sorted(maps.Keys(m.Conditions)) {
		for _, c := range m.Conditions[cluster] {
			fmt.Fprintf(&b, "%s: %s=%s %s\n", cluster, c.Type, c.Status, c.Reason)
			if c.Status == metav1.ConditionTrue {
				fmt.Fprintf(&b, "  %s\n", c.Message)
			}
		}
		if differs := m.Seen[cluster].Differs; len(differs) > 0 {
			fmt.Fprintf(&b, "  differs: %s\n", strings.Join(differs, ", "))
		}
	}
	return b.String()
}

// placesOf returns clusters with their sequences, like "us-east 2, us-west 1".
func placesOf(clusters []v1alpha1.ExportingCluster) string {
	var places []string
	for _, c := range clusters {
		places = append(places, fmt.Sprint(c.Name, " ", c.Sequence))
	}
	return strings.Join(places, ", ")
}

func pairs(text string) map[string]string {
	set := map[string]string{}
	for p := range strings.SplitSeq(text, ",") {
		k, v, _ := strings.Cut(p, ":")
		set[k] = v
	}
	return set
}

func hour(t *testing.T, text string) time.Time {
	return time.Date(2026, 1, 1, number(t, text), 0, 0, 0, time.UTC)
}

func number(t *testing.T, text string) int {
	n, err := strconv.Atoi(text)
	testkit.Must(t, err)
	return n
}

// Clusters that come and go for years are not remembered for ever: of very many, those
// that were seen last keep their places.
func TestFormerClustersAreBounded(t *testing.T) {
	var inForce *v1alpha1.FleetServiceSpec
	exportOf := func(cluster string) Export {
		return Export{Cluster: fleet.ClusterName(cluster), Spec: v1alpha1.MemberExportSpec{ExportUID: "uid-" + cluster}}
	}
	for i := range 10 * maxFormer {
		inForce = Merge([]Export{exportOf("stays"), exportOf(fmt.Sprint("c", i))}, inForce).Import
	}
	if len(inForce.Former) != maxFormer {
		t.Fatalf("%d former clusters", len(inForce.Former))
	}
	isLast := func(c v1alpha1.ExportingCluster) bool {
		return c.Name == fmt.Sprint("c", 10*maxFormer-2) && c.Sequence == 10*maxFormer
	}
	if !slices.ContainsFunc(inForce.Former, isLast) {
		t.Errorf("the last that went is not remembered: %v", inForce.Former)
	}
}
