package serviceimport

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// property is something that an import has one value of, and that each export has
// a value of.
type property struct {
	key   string            // in SeenExport.Differs
	has   func(Export) bool // nil: every export has it
	equal func(a, b Export) bool
}

// inForce returns the senior of the exports that have the value in force, and nil
// where none has. The last merge says what is in force, unless all exports that have
// its value are recorded as different from the value of another: then another
// replica wrote the records and decided otherwise. Where the last merge does not help,
// an export has the value in force that had it when it was recorded and is the same
// since.
func (p property) inForce(exports []Export, last *Export) *Export {
	having := p.having(exports)
	at := slices.IndexFunc(having, func(e Export) bool { return e.recordedWith(p.key, false) })
	if last != nil && (p.has == nil || p.has(*last)) {
		var holders []Export
		for _, e := range having {
			if p.equal(e, *last) {
				holders = append(holders, e)
			}
		}
		differs := func(e Export) bool { return e.recordedWith(p.key, true) }
		if len(holders) > 0 && (at < 0 || slices.ContainsFunc(holders, func(e Export) bool { return !differs(e) })) {
			return &holders[0]
		}
	}
	if at >= 0 {
		return &having[at]
	}
	return nil
}

// having returns the exports that have the property, the senior first.
func (p property) having(exports []Export) []Export {
	return slices.DeleteFunc(slices.Clone(exports), func(e Export) bool { return p.has != nil && !p.has(e) })
}

// decide returns an export with the value that is in force from now on; nil: no export has the
// property. It notes which exports differ.
func (m *merger) decide(p property) *Export {
	having := p.having(m.exports)
	if len(having) == 0 {
		return nil
	}
	holder := p.inForce(m.exports, m.last)
	if holder == nil {
		holder = &having[0]
	}
	for _, e := range having {
		if !p.equal(e, *holder) {
			m.differs[e.Cluster] = append(m.differs[e.Cluster], p.key)
		}
	}
	return holder
}

// field is a property of the service as a whole (KEP-1645, "Global Properties").
type field struct {
	property
	name   string // in messages
	reason mcsv1beta1.ServiceExportConditionReason
	set    func(into, from *v1alpha1.ServiceProperties)
	agrees func(e, inForce Export) bool // there is no conflict; nil: where they are equal
	value  func(Export) string
	labels func(Export) map[string]string // instead of value; a message shows only the keys that differ
	advice string                         // empty: to make them equal
}

// fields are all such properties, in the order in which reasons are joined, behind
// that of ports. The affinity comes before its configuration.
var fields = []field{
	{
		property: property{key: "type", equal: func(a, b Export) bool { return a.Spec.Type == b.Spec.Type }},
		name:     "type", reason: mcsv1beta1.ServiceExportReasonTypeConflict,
		set:   func(into, from *v1alpha1.ServiceProperties) { into.Type = from.Type },
		value: func(e Export) string { return string(e.Spec.Type) },
	},
	{
		property: property{key: "sessionAffinity", equal: func(a, b Export) bool { return affinityOf(a) == affinityOf(b) }},
		name:     "sessionAffinity", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConflict,
		set:   func(into, from *v1alpha1.ServiceProperties) { into.SessionAffinity = from.SessionAffinity },
		value: func(e Export) string { return string(affinityOf(e)) },
	},
	{
		property: property{key: affinityConfigKey, has: func(e Export) bool { return affinityOf(e) == corev1.ServiceAffinityClientIP },
			equal: func(a, b Export) bool {
				return apiequality.Semantic.DeepEqual(a.Spec.SessionAffinityConfig, b.Spec.SessionAffinityConfig)
			}},
		name: "sessionAffinityConfig", reason: mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict,
		set:   func(into, from *v1alpha1.ServiceProperties) { into.SessionAffinityConfig = from.SessionAffinityConfig },
		value: affinityTimeout,
	},
	{
		property: property{key: "labels", equal: func(a, b Export) bool { return maps.Equal(a.Spec.Labels, b.Spec.Labels) }},
		name:     "exported labels", reason: mcsv1beta1.ServiceExportReasonLabelsConflict,
		set:    func(into, from *v1alpha1.ServiceProperties) { into.Labels = from.Labels },
		labels: func(e Export) map[string]string { return e.Spec.Labels },
	},
	{
		property: property{key: "annotations", equal: func(a, b Export) bool { return maps.Equal(a.Spec.Annotations, b.Spec.Annotations) }},
		name:     "exported annotations", reason: mcsv1beta1.ServiceExportReasonAnnotationsConflict,
		set:    func(into, from *v1alpha1.ServiceProperties) { into.Annotations = from.Annotations },
		labels: func(e Export) map[string]string { return e.Spec.Annotations },
	},
	{
		property: property{key: "internalTrafficPolicy", equal: func(a, b Export) bool { return internalPolicy(a) == internalPolicy(b) }},
		name:     "internalTrafficPolicy", reason: mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict,
		set:   func(into, from *v1alpha1.ServiceProperties) { into.InternalTrafficPolicy = from.InternalTrafficPolicy },
		value: func(e Export) string { return string(internalPolicy(e)) },
	},
	{
		property: property{key: "trafficDistribution", equal: func(a, b Export) bool { return distribution(a) == distribution(b) }},
		name:     "trafficDistribution", reason: mcsv1beta1.ServiceExportReasonTrafficDistributionConflict,
		set:   func(into, from *v1alpha1.ServiceProperties) { into.TrafficDistribution = from.TrafficDistribution },
		value: distribution,
	},
	{
		property: property{key: "ipFamilies", equal: func(a, b Export) bool { return slices.Equal(a.Spec.IPFamilies, b.Spec.IPFamilies) }},
		name:     "ipFamilies", reason: mcsv1beta1.ServiceExportReasonIPFamilyConflict,
		set:    func(into, from *v1alpha1.ServiceProperties) { into.IPFamilies = from.IPFamilies },
		agrees: hasFamiliesOf,
		value:  func(e Export) string { return fmt.Sprint(e.Spec.IPFamilies) },
		advice: "clients of a family that a cluster lacks do not reach its endpoints, so give all Services the same families",
	},
}

const affinityConfigKey = "sessionAffinityConfig"

// hasFamiliesOf tells whether an export has all IP families in force. A family more,
// or another order, leaves no endpoint unreachable, and an export may not say.
func hasFamiliesOf(e, inForce Export) bool {
	return len(e.Spec.IPFamilies) == 0 || !slices.ContainsFunc(inForce.Spec.IPFamilies, func(f corev1.IPFamily) bool { return !slices.Contains(e.Spec.IPFamilies, f) })
}

// mergeProperties sets all properties that are in force.
func (m *merger) mergeProperties(into *v1alpha1.ServiceProperties) {
	for _, f := range fields {
		if f.key == affinityConfigKey && into.SessionAffinity != corev1.ServiceAffinityClientIP {
			continue
		}
		holder := m.decide(f.property)
		if holder == nil {
			continue
		}
		f.set(into, holder.Spec.ServiceProperties.DeepCopy())
		agrees := f.agrees
		if agrees == nil {
			agrees = f.equal
		}
		losers := slices.DeleteFunc(f.having(m.exports), func(e Export) bool { return agrees(e, *holder) })
		if len(losers) > 0 {
			m.conflicts = append(m.conflicts, f.conflictOf(*holder, losers))
		}
	}
}

// conflictOf describes that some exports disagree with the value in force.
func (f field) conflictOf(holder Export, losers []Export) conflict {
	value := f.value
	if f.labels != nil {
		keys := keysThatDiffer(f.labels(holder), losers, f.labels)
		value = func(e Export) string { return labelsText(f.labels(e), keys) }
	}
	c := disagreement{property: f.name, inForce: clusterValue{holder.Cluster, value(holder)},
		advice: cmp.Or(f.advice, "make them equal in all clusters")}
	for _, e := range losers {
		c.losers = append(c.losers, clusterValue{e.Cluster, value(e)})
	}
	return conflict{f.reason, c.message}
}

func affinityOf(e Export) corev1.ServiceAffinity {
	return cmp.Or(e.Spec.SessionAffinity, corev1.ServiceAffinityNone) // the API's default
}

func affinityTimeout(e Export) string {
	c := e.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return "the default"
	}
	return "a timeout of " + strconv.Itoa(int(*c.ClientIP.TimeoutSeconds)) + " s"
}

func internalPolicy(e Export) corev1.ServiceInternalTrafficPolicy {
	return ptr.Deref(e.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) // the API's default
}

func distribution(e Export) string { return ptr.Deref(e.Spec.TrafficDistribution, "unset") }
