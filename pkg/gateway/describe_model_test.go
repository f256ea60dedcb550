package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"crossway.dev/crossway/pkg/gateway/model"
)

// describeModel is a Model as lines of text, for stories. Of a Secret it has only
// the name.
func describeModel(m model.Model) string {
	var out strings.Builder
	for _, l := range m.Listeners {
		fmt.Fprintf(&out, "%s :%d %s%s\n", l.Gateway, l.Port, l.Protocol, describeAddresses(l.Addresses))
		for _, c := range l.Chains {
			describeChain(&out, c)
		}
		describeL4(&out, "  udp", l.UDP)
	}
	for _, a := range m.Assignments {
		fmt.Fprintf(&out, "assignment %s %s", a.Key, a.Protocol)
		if a.Timeout > 0 {
			fmt.Fprintf(&out, " each=%s", a.Timeout)
		}
		if a.Policy != nil && a.Policy.GatewayErrors > 0 {
			fmt.Fprintf(&out, " gatewayErrors=%d", a.Policy.GatewayErrors)
		}
		if a.Policy.Check() != nil {
			fmt.Fprintf(&out, " check=%s/%s%s", a.Policy.HealthCheck.Interval, a.Policy.HealthCheck.Timeout, a.Policy.HealthCheck.Path)
		}
		describeBackends(&out, " | ", a.Backends)
		describeBackends(&out, " else ", a.Fallback)
		out.WriteString("\n")
	}
	for _, s := range m.Secrets {
		fmt.Fprintf(&out, "secret %s\n", s.Name)
	}
	for _, i := range m.Imports {
		fmt.Fprintf(&out, "traffic %s %s rate=%g\n", i.Backend, i.Mode, i.Rate)
	}
	if out.Len() == 0 {
		return "nothing\n"
	}
	return out.String()
}

func describeBackends(out *strings.Builder, mark string, backends []model.WeightedBackend) {
	for _, b := range backends {
		fmt.Fprintf(out, "%s%s:%d(%s)", mark, b.Backend, b.Port, b.PortName)
		if b.Clusters != nil {
			fmt.Fprintf(out, " in %v", b.Clusters)
		}
		fmt.Fprintf(out, " x%d", b.Weight)
		if b.Unchecked {
			out.WriteString(" unchecked")
		}
	}
}

func describeAddresses(addresses []model.Address) string {
	var out strings.Builder
	for _, a := range addresses {
		fmt.Fprintf(&out, " %s=%s", a.Pool, a.Address)
	}
	return out.String()
}

func describeChain(out *strings.Builder, c model.Chain) {
	indent := "  "
	if c.ServerName != "" || c.Secrets != nil || c.Reject || c.TCP != nil {
		fmt.Fprintf(out, "  chain %s sni=%q", c.Name, c.ServerName)
		if c.Reject {
			out.WriteString(" REJECT")
		}
		for _, s := range c.Secrets {
			fmt.Fprintf(out, " cert=%s", s)
		}
		if c.Misdirected != nil {
			fmt.Fprintf(out, " 421=%v", c.Misdirected)
		}
		out.WriteString("\n")
		indent = "    "
	}
	describeL4(out, indent+"tcp", c.TCP)
	for _, h := range c.Hosts {
		fmt.Fprintf(out, "%shost %s\n", indent, h.Hostname+describeWider(c, h))
		for i := range h.Rules {
			fmt.Fprintf(out, "%s  %s\n", indent, describeRule(&h.Rules[i]))
		}
	}
}

// describeWider are the wider hosts of a host, with the rules where some are left out.
func describeWider(c model.Chain, h model.VirtualHost) (text string) {
	for _, w := range h.Wider {
		text += ", then " + w.Hostname
		same := func(wide model.VirtualHost) bool {
			return wide.Hostname == w.Hostname && model.SameSlice(wide.Rules, w.Rules)
		}
		if slices.ContainsFunc(c.Hosts, same) {
			continue
		}
		for i := range w.Rules {
			text += fmt.Sprintf(" (%s.%d.%d)", w.Rules[i].Origin.Route.Name, w.Rules[i].Origin.Rule, w.Rules[i].Origin.Match)
		}
	}
	return text
}

func describeL4(out *strings.Builder, what string, f *model.L4Forward) {
	if f == nil {
		return
	}
	fmt.Fprintf(out, "%s (%s.%d)", what, model.RouteName(f.Origin.Route), f.Origin.Rule)
	for _, t := range f.Targets {
		fmt.Fprintf(out, " -> %s x%d", cmp.Or(t.Assignment, "closed"), t.Weight)
	}
	out.WriteString("\n")
}

func describeRule(r *model.Rule) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s", map[model.PathKind]string{model.PathExact: "=", model.PathPrefix: "^", model.PathRegex: "~"}[r.Match.Path.Kind], r.Match.Path.Value)
	if r.Match.Method != "" {
		fmt.Fprintf(&out, " %s", r.Match.Method)
	}
	for _, h := range r.Match.Headers {
		fmt.Fprintf(&out, " [%s]", describeValue(h))
	}
	for _, q := range r.Match.Query {
		fmt.Fprintf(&out, " ?%s", describeValue(q))
	}
	fmt.Fprintf(&out, " (%s.%d.%d)", model.RouteName(r.Origin.Route), r.Origin.Rule, r.Origin.Match)
	switch {
	case r.Forward != nil:
		for _, t := range r.Forward.Targets {
			name := t.Assignment
			if name == "" {
				name = "500"
			}
			fmt.Fprintf(&out, " -> %s x%d%s%s", name, t.Weight, describeHeaders("request", t.Request), describeHeaders("response", t.Response))
		}
	case r.Redirect != nil:
		fmt.Fprintf(&out, " => %d %s://%s:%d%s", r.Redirect.StatusCode, r.Redirect.Scheme, r.Redirect.Hostname, r.Redirect.Port, describePath(r.Redirect.Path))
	case r.Respond != nil:
		fmt.Fprintf(&out, " => %d", r.Respond.StatusCode)
	}
	out.WriteString(describeHeaders("request", r.Request) + describeHeaders("response", r.Response))
	if r.Rewrite != nil {
		fmt.Fprintf(&out, " rewrite=%s%s", r.Rewrite.Hostname, describePath(r.Rewrite.Path))
	}
	for _, m := range r.Mirrors {
		fmt.Fprintf(&out, " mirror=%s %d/%d", m.Assignment, m.Numerator, m.Denominator)
	}
	if r.Timeout != nil {
		fmt.Fprintf(&out, " timeout=%s", *r.Timeout)
	}
	if r.BackendTimeout != nil {
		fmt.Fprintf(&out, " each=%s", *r.BackendTimeout)
	}
	return out.String()
}

func describeValue(v model.ValueMatch) string {
	if v.Regex {
		return v.Name + "~" + v.Value
	}
	return v.Name + "=" + v.Value
}

func describeHeaders(what string, c model.HeaderChanges) string {
	if len(c.Set)+len(c.Add)+len(c.Remove) == 0 {
		return ""
	}
	return fmt.Sprintf(" %s{set %v add %v remove %v}", what, c.Set, c.Add, c.Remove)
}

func describePath(p *model.PathChange) string {
	switch {
	case p == nil:
		return ""
	case p.Full != nil:
		return " full " + *p.Full
	default:
		return " prefix " + *p.Prefix
	}
}
