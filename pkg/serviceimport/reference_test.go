package serviceimport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"crossway.dev/crossway/api/v1alpha1"
)

// reference is a service as the naive implementation sees it: every property, also
// those of ports, is a text under a key.
type reference struct {
	order     []string // "cluster uid", the senior first; also of those that have gone
	values    map[string]string
	backing   map[string][]string // by port: clusters
	conflicts map[string]bool     // "ports" and keys of values
}

func portsOf(i *v1alpha1.FleetServiceSpec) []v1alpha1.ServicePort {
	var ports []v1alpha1.ServicePort
	for _, p := range i.Ports {
		ports = append(ports, p.ServicePort)
	}
	return ports
}

func backingOf(i *v1alpha1.FleetServiceSpec) map[string][]string {
	backing := map[string][]string{}
	for _, p := range i.Ports {
		clusters := slices.Clone(p.Clusters)
		if p.Clusters == nil {
			for _, c := range i.Clusters {
				clusters = append(clusters, c.Name)
			}
		}
		backing[fmt.Sprint(p.Protocol, p.Port)] = clusters
	}
	return backing
}

func valuesOf(p v1alpha1.ServiceProperties, ports []v1alpha1.ServicePort) map[string]string {
	v := map[string]string{"type": string(p.Type), "affinity": string(p.SessionAffinity),
		"labels": fmt.Sprint(p.Labels), "annotations": fmt.Sprint(p.Annotations), "internal": "Cluster", "distribution": ""}
	if p.SessionAffinity == "ClientIP" {
		v["timeout"] = fmt.Sprint(*p.SessionAffinityConfig.ClientIP.TimeoutSeconds)
	}
	if p.InternalTrafficPolicy != nil {
		v["internal"] = string(*p.InternalTrafficPolicy)
	}
	if p.TrafficDistribution != nil {
		v["distribution"] = *p.TrafficDistribution
	}
	v["families"] = fmt.Sprint(p.IPFamilies)
	for _, port := range ports {
		id := fmt.Sprint(port.Protocol, port.Port)
		v[id+" name"], v[id+" app"] = port.Name, ""
		if port.AppProtocol != nil {
			v[id+" app"] = *port.AppProtocol
		}
	}
	return v
}

// merge returns the service after another merge.
func (r reference) merge(exports []Export) reference {
	byTime := slices.Clone(exports)
	slices.SortFunc(byTime, func(a, b Export) int {
		return cmp.Or(cmp.Compare(countsFrom(a), countsFrom(b)), cmp.Compare(a.Cluster, b.Cluster))
	})
	who := func(e Export) string { return fmt.Sprint(e.Cluster, " ", e.Spec.ExportUID) }
	next := reference{order: slices.Clone(r.order), values: map[string]string{}, backing: map[string][]string{}, conflicts: map[string]bool{}}
	for _, e := range byTime {
		if !slices.Contains(next.order, who(e)) { // another UID of the same cluster replaces it
			next.order = append(slices.DeleteFunc(next.order, func(o string) bool {
				return len(o) > len(e.Cluster) && o[:len(e.Cluster)+1] == string(e.Cluster)+" "
			}), who(e))
		}
	}
	slices.SortFunc(byTime, func(a, b Export) int {
		return cmp.Compare(slices.Index(next.order, who(a)), slices.Index(next.order, who(b)))
	})
	next.choose(r.values, byTime)
	next.name(r.values, byTime)
	for key, value := range next.values {
		about := key
		if strings.Contains(key, " ") {
			about = "ports"
		}
		for _, e := range byTime {
			mine, has := valuesOf(e.Spec.ServiceProperties, e.Spec.Ports)[key]
			differs := mine != value || !has
			switch key {
			case "families":
				differs = mine != "[]" && (contains(value, "IPv4") && !contains(mine, "IPv4") || contains(value, "IPv6") && !contains(mine, "IPv6"))
			case "timeout": // of another affinity, it has none
				differs = has && mine != value
			}
			if differs {
				next.conflicts[about] = true
			}
		}
	}
	return next
}

func contains(list, family string) bool {
	return slices.Contains([]string{"[" + family + "]", "[IPv4 IPv6]", "[IPv6 IPv4]"}, list)
}

// choose sets all values but names: what was in force if somebody has it, or else the senior's.
func (r *reference) choose(before map[string]string, senior []Export) {
	held := map[string]bool{}
	for _, e := range senior {
		for key, value := range valuesOf(e.Spec.ServiceProperties, e.Spec.Ports) {
			old, was := before[key]
			if _, chosen := r.values[key]; !chosen || was && old == value && !held[key] {
				r.values[key] = value
			}
			held[key] = held[key] || was && old == value
		}
	}
	if r.values["affinity"] != "ClientIP" {
		delete(r.values, "timeout")
	}
}

// name names the ports: claims in the order of their strength take what is free. A port
// without a name is not part of the service.
func (r *reference) name(before map[string]string, senior []Export) {
	type claim struct {
		strength, seniority, attempt int
		number                       int32
		id, name                     string
	}
	var claims []claim
	first := map[string]int{}
	for i, e := range senior {
		for _, p := range e.Spec.Ports {
			id := fmt.Sprint(p.Protocol, p.Port)
			if _, ok := first[id]; !ok {
				first[id] = i
			}
			old, known := before[id+" name"]
			strength := 3
			if known {
				strength = 2
				claims = append(claims, claim{2, first[id], len(senior), p.Port, id, old},
					claim{2, first[id], len(senior) + 1, p.Port, id, strings.ToLower(fmt.Sprintf("%s-%d", p.Protocol, p.Port))})
			}
			if known && old == p.Name {
				claims = append(claims, claim{1, first[id], 0, p.Port, id, old})
			}
			claims = append(claims, claim{strength, first[id], i, p.Port, id, p.Name})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.strength, b.strength), cmp.Compare(a.seniority, b.seniority),
			cmp.Compare(a.number, b.number), cmp.Compare(a.id, b.id), cmp.Compare(a.attempt, b.attempt))
	})
	named, taken := map[string]string{}, map[string]bool{}
	for _, c := range claims {
		if _, ok := named[c.id]; !ok && !taken[c.name] {
			named[c.id], taken[c.name] = c.name, true
		}
	}
	for id := range first {
		name, ok := named[id]
		if !ok {
			delete(r.values, id+" name")
			delete(r.values, id+" app")
			r.conflicts["ports"] = true
			continue
		}
		r.values[id+" name"] = name
		for _, e := range senior {
			if app, has := valuesOf(e.Spec.ServiceProperties, e.Spec.Ports)[id+" app"]; has && app == r.values[id+" app"] {
				r.backing[id] = append(r.backing[id], string(e.Cluster))
			}
		}
		slices.Sort(r.backing[id])
	}
}

func countsFrom(e Export) int64 { return max(e.AcceptedAt.Unix(), e.Spec.ExportedAt.Unix()) }
