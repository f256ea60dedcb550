package registration

import (
	"cmp"
	"regexp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
)

// Kinds in which others read which clusters a fleet has. Both are optional, and their Go
// types are in modules that bring their own versions of Kubernetes' clients along, so the
// objects here are unstructured.
var (
	// ClusterPropertyKinds are the versions of ClusterProperty (KEP-2149).
	ClusterPropertyKinds = []schema.GroupVersionKind{
		{Group: "about.k8s.io", Version: "v1beta1", Kind: "ClusterProperty"}, {Group: "about.k8s.io", Version: "v1alpha1", Kind: "ClusterProperty"}}
	// ClusterProfileKind is KEP-4322's.
	ClusterProfileKind = schema.GroupVersionKind{Group: "multicluster.x-k8s.io", Version: "v1alpha1", Kind: "ClusterProfile"}
)

const (
	// PropertyCluster and PropertyClusterSet are the ClusterProperties of a member: its
	// name, and the fleet's.
	PropertyCluster    = "cluster.clusterset.k8s.io"
	PropertyClusterSet = "clusterset.k8s.io"
	// propertyRegion and propertyZone are properties of a ClusterProfile.
	propertyRegion = "region.crossway.dev"
	propertyZone   = "zone.crossway.dev"

	// clusterManagerLabel has the name of who writes a ClusterProfile, which is also in its spec.
	clusterManagerLabel = "x-k8s.io/cluster-manager"
	clusterManager      = v1alpha1.ManagedBy
)

// ClusterProperty is one of a member's own objects.
func ClusterProperty(kind schema.GroupVersionKind, name, value string) *unstructured.Unstructured {
	o := newObject(kind, "", name)
	o.SetLabels(map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy})
	o.Object["spec"] = map[string]any{"value": value}
	return o
}

// ClusterPropertyOurs says that Crossway made a ClusterProperty.
func ClusterPropertyOurs(o *unstructured.Unstructured) bool {
	return o.GetLabels()[v1alpha1.LabelManagedBy] == v1alpha1.ManagedBy
}

// ProfileFacts are what a ClusterProfile is made of.
type ProfileFacts struct {
	Member     *v1alpha1.MemberCluster
	ClusterSet string
	Lease      map[string]string // annotations of the agent's Lease
}

// ClusterProfile is the profile of an accepted member: spec and labels.
func ClusterProfile(f ProfileFacts) *unstructured.Unstructured {
	o := newObject(ClusterProfileKind, v1alpha1.FleetNamespace, f.Member.Name)
	o.SetLabels(map[string]string{clusterManagerLabel: clusterManager})
	o.Object["spec"] = map[string]any{"displayName": f.Member.Name, "clusterManager": map[string]any{"name": clusterManager}}
	return o
}

// ClusterProfileOurs says that Crossway made a ClusterProfile.
func ClusterProfileOurs(o *unstructured.Unstructured) bool {
	return o.GetLabels()[clusterManagerLabel] == clusterManager
}

// ClusterProfileStatus is the status of a member's profile. stored is the profile as it
// is: the times of its conditions stay. It has no time of its own, so that a renewal of
// the Lease changes nothing.
func ClusterProfileStatus(f ProfileFacts, stored *unstructured.Unstructured, now time.Time) (map[string]any, error) {
	var before struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(stored.Object, &before); err != nil {
		return nil, err // somebody else's CRD
	}
	properties := []any{}
	for _, p := range [][2]string{{PropertyCluster, f.Member.Name}, {PropertyClusterSet, f.ClusterSet}, {propertyRegion, f.Member.Spec.Region}, {propertyZone, f.Member.Spec.Zone}} {
		if p[1] != "" {
			properties = append(properties, map[string]any{"name": p[0], "value": p[1]})
		}
	}
	conditions := []any{}
	for _, c := range condition.Stamped(before.Status.Conditions, profileConditions(f.Member), stored.GetGeneration(), now) {
		o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&c)
		if err != nil {
			return nil, err
		}
		conditions = append(conditions, o)
	}
	status := map[string]any{"properties": properties, "conditions": conditions}
	if version := f.Lease[v1alpha1.AnnotationKubernetesVersion]; versionPattern.MatchString(version) {
		status["version"] = map[string]any{"kubernetes": version}
	}
	return status, nil
}

// versionPattern is what a version of Kubernetes looks like. Any other text that an agent
// writes there is not shown.
var versionPattern = regexp.MustCompile(`^v?[0-9]{1,3}(\.[0-9]{1,4}){1,2}([-+.][0-9A-Za-z.+-]{0,40})?$`)

// profileConditions are Joined, as the MemberCluster has it, and ControlPlaneHealthy. The
// agent renews its Lease on the hub only while it leads in its own cluster, for which that
// cluster's API server must answer. Silence may have other reasons.
func profileConditions(m *v1alpha1.MemberCluster) []condition.Condition {
	var all []condition.Condition
	if joined := meta.FindStatusCondition(m.Status.Conditions, condition.MemberJoinedType); joined != nil {
		all = append(all, condition.Condition{Type: joined.Type, Status: joined.Status, Reason: joined.Reason, Message: joined.Message})
	}
	if heard := meta.FindStatusCondition(m.Status.Conditions, condition.MemberReachableType); heard != nil {
		all = append(all, condition.ProfileControlPlane(heard.Status == metav1.ConditionTrue, heard.Reason))
	}
	slices.SortFunc(all, func(a, b condition.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return all
}

func newObject(kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetGroupVersionKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// OptionalObject is an empty object of an optional kind, to read into.
func OptionalObject(kind schema.GroupVersionKind) *unstructured.Unstructured {
	return newObject(kind, "", "")
}
