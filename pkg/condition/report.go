package condition

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Condition is a status condition without time, which the writer adds.
type Condition struct {
	Type    string
	Status  metav1.ConditionStatus
	Reason  string
	Message string
	// Generation is the one that the condition is about; 0: the Report's.
	Generation int64
}

// newCondition is a condition with status True if ok, else False.
func newCondition[T, R ~string](conditionType T, ok bool, reason R, message string) Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return Condition{Type: string(conditionType), Status: status, Reason: string(reason), Message: message}
}

// Kind is the kind of object of a Report.
type Kind = fleet.Kind

const (
	GatewayClass  Kind = "GatewayClass"
	Gateway       Kind = "Gateway"
	HTTPRoute     Kind = "HTTPRoute"
	BackendPolicy Kind = "BackendPolicy"
	EdgePool      Kind = "EdgePool"
)

// Ref is one object at one generation. Namespace is empty for cluster-scoped kinds.
type Ref struct {
	Kind       Kind
	Name       fleet.ObjectName
	Generation int64
}

// Object is the Ref without its generation.
func (r Ref) Object() fleet.ObjectRef { return fleet.ObjectRef{Kind: r.Kind, Name: r.Name} }

// Report is one source's part of the status of one object. Only the fields of the
// object's kind are set. The writer keeps the parts of other owners.
type Report struct {
	Ref        Ref
	Conditions []Condition      // by Type; on the object itself
	Addresses  []string         // Gateway: status.addresses, sorted by pool
	Listeners  []ListenerReport // Gateway: in spec order
	Parents    []ParentReport   // routes: one per parentRef of ours, in spec order; policies: one per ancestor
	Features   []string         // GatewayClass: status.supportedFeatures, sorted
	Pool       *PoolReport      // EdgePool
	// Credentials are status.credentials of an EdgePool; nil: another source reports them.
	Credentials *[]v1alpha1.EdgeCredential
}

// PoolReport is the status of an EdgePool, beside its conditions.
type PoolReport struct {
	Edges int32 // connected
	// Given are the allocations that Allocations were computed from. If others are
	// stored by now, another computation will follow.
	Given, Allocations []v1alpha1.AddressAllocation
}

// ListenerReport is the status of one Gateway API listener.
type ListenerReport struct {
	Name           string
	SupportedKinds []string // route kinds of gateway.networking.k8s.io
	AttachedRoutes int32
	Conditions     []Condition
}

// ParentReport is the status of a route towards one parentRef, of which ParentRef
// is a copy, byte for byte; or of a policy towards one object that it acts on
// (AncestorRef).
type ParentReport struct {
	ParentRef  gatewayv1.ParentReference
	Conditions []Condition
}

// AncestorRef refers to an object that a policy acts on.
func AncestorRef(group, kind string, name fleet.ObjectName) gatewayv1.ParentReference {
	ref := gatewayv1.ParentReference{Group: new(gatewayv1.Group(group)), Kind: new(gatewayv1.Kind(kind)), Name: gatewayv1.ObjectName(name.Name)}
	if name.Namespace != "" {
		ref.Namespace = new(gatewayv1.Namespace(name.Namespace))
	}
	return ref
}
