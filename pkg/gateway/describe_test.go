package gateway

import (
	"fmt"
	"strings"

	"crossway.dev/crossway/pkg/condition"
)

// describeReports are the reports on objects of a kind or name, as text; empty: all.
func describeReports(reports []condition.Report, kind, name string) string {
	var out strings.Builder
	for _, r := range reports {
		if kind != "" && string(r.Ref.Kind) != kind || name != "" && r.Ref.Name != objectName(name) {
			continue
		}
		fmt.Fprintf(&out, "%s %s @%d", r.Ref.Kind, strings.TrimPrefix(r.Ref.Name.String(), "/"), r.Ref.Generation)
		if r.Addresses != nil {
			fmt.Fprintf(&out, " %v", r.Addresses)
		}
		out.WriteString("\n")
		describeConditions(&out, "  ", r.Conditions)
		for _, l := range r.Listeners {
			fmt.Fprintf(&out, "  listener %s %v attached=%d\n", l.Name, l.SupportedKinds, l.AttachedRoutes)
			describeConditions(&out, "    ", l.Conditions)
		}
		for _, p := range r.Parents {
			if r.Ref.Kind == condition.BackendPolicy {
				fmt.Fprintf(&out, "  ancestor %s %s/%s\n", *p.ParentRef.Kind, *p.ParentRef.Namespace, p.ParentRef.Name)
				describeConditions(&out, "    ", p.Conditions)
				continue
			}
			fmt.Fprintf(&out, "  parent %s", p.ParentRef.Name)
			if p.ParentRef.SectionName != nil {
				fmt.Fprintf(&out, " section %s", *p.ParentRef.SectionName)
			}
			if p.ParentRef.Port != nil {
				fmt.Fprintf(&out, " port %d", *p.ParentRef.Port)
			}
			out.WriteString("\n")
			describeConditions(&out, "    ", p.Conditions)
		}
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

// describeConditions leaves out the messages of conditions whose reason is their type.
func describeConditions(out *strings.Builder, indent string, conditions []condition.Condition) {
	for _, c := range conditions {
		fmt.Fprintf(out, "%s%s=%s %s", indent, c.Type, c.Status, c.Reason)
		if c.Generation != 0 {
			fmt.Fprintf(out, " @%d", c.Generation)
		}
		if c.Type != c.Reason && c.Reason != "NoConflicts" {
			fmt.Fprintf(out, ": %s", c.Message)
		}
		out.WriteString("\n")
	}
}
