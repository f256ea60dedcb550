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
func TestMergeStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/merge.txt", func(t *testing.T, d *datadriven.TestData) string {
		var exports []Export
		for line := range strings.Lines(d.Input) {
			exports = append(exports, readExport(t, strings.Fields(line)))
		}
		merged := Merge(exports)
		slices.Reverse(exports)
		if again := describeMerged(Merge(exports)); again != describeMerged(merged) {
			t.Errorf("another order of the exports gives another import:\n%s", again)
		}
		return describeMerged(merged)
	})
}

// readExport reads `us-west at=2 accepted=1 ports=http:80/TCP,grpc:90/TCP/h2c type=Headless ...`.
func readExport(t *testing.T, args []string) Export {
	e := Export{Cluster: fleet.ClusterName(args[0]), Spec: v1alpha1.MemberExportSpec{
		Service:           v1alpha1.ServiceReference{Namespace: "shop", Name: "web"},
		ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
	}}
	for _, w := range args[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "at":
			e.Spec.ExportedAt = metav1.NewTime(hour(t, value))
		case "accepted":
			e.AcceptedAt = hour(t, value)
		case "type":
			e.Spec.Type = v1alpha1.ServiceType(value)
		case "affinity":
			e.Spec.SessionAffinity = corev1.ServiceAffinity(value)
		case "timeout":
			seconds := int32(number(t, value))
			e.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		case "internal":
			policy := corev1.ServiceInternalTrafficPolicy(value)
			e.Spec.InternalTrafficPolicy = &policy
		case "distribution":
			e.Spec.TrafficDistribution = &value
		case "labels":
			e.Spec.Labels = pairs(value)
		case "annotations":
			e.Spec.Annotations = pairs(value)
		case "families":
			for f := range strings.SplitSeq(value, ",") {
				e.Spec.IPFamilies = append(e.Spec.IPFamilies, corev1.IPFamily(f))
			}
		case "ports":
			for p := range strings.SplitSeq(value, ",") {
				e.Spec.Ports = append(e.Spec.Ports, readPort(t, p))
			}
		default:
			t.Fatalf("unknown argument %q", w)
		}
	}
	return e
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
	var clusters []string
	for _, c := range m.Import.Clusters {
		clusters = append(clusters, c.Name)
	}
	fmt.Fprintf(&b, " from %s\n", strings.Join(clusters, ", "))
	for _, port := range m.Import.Ports {
		fmt.Fprintf(&b, "  port %s %s", portName(port.ServicePort), portValue(port.ServicePort))
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
	}
	return b.String()
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
