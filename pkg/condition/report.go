package condition

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// Condition is a verdict. The writer adds time and generation.
type Condition struct {
	Type    string
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// Kind names a kind of object that Reports are about.
type Kind = fleet.Kind

const (
	GatewayClass  Kind = "GatewayClass"
	Gateway       Kind = "Gateway"
	HTTPRoute     Kind = "HTTPRoute"
	BackendPolicy Kind = "BackendPolicy"
)

// Ref is one object at one generation. Namespace is empty for cluster-scoped kinds.
type Ref struct {
	Kind       Kind
	Name       fleet.ObjectName
	Generation int64
}

// Object is the object, whatever its generation.
func (r Ref) Object() fleet.ObjectRef { return fleet.ObjectRef{Kind: r.Kind, Name: r.Name} }

// Report is all that Build has to say about one object. Only the part that
// fits the kind is set; the writer keeps what other owners wrote beside it.
type Report struct {
	Ref        Ref
	Conditions []Condition      // by Type; on the object itself
	Addresses  []string         // Gateway: status.addresses, sorted by pool
	Listeners  []ListenerReport // Gateway: in spec order
	Parents    []ParentReport   // routes: one per parentRef of ours, in spec order
	Ancestors  []AncestorReport // BackendPolicy: one per target
	Features   []string         // GatewayClass: status.supportedFeatures, sorted
}

// ListenerReport is the status of one Gateway API listener.
type ListenerReport struct {
	Name           string
	SupportedKinds []string // route kinds of gateway.networking.k8s.io
	AttachedRoutes int32
	Conditions     []Condition
}

// ParentReport is the status of a route towards one parentRef.
type ParentReport struct {
	ParentRef  ParentRef
	Conditions []Condition
}

// ParentRef repeats the route's own parentRef, byte for byte as the user gave it.
type ParentRef struct {
	Group       *string
	Kind        *string
	Namespace   *string
	Name        string
	SectionName *string
	Port        *int32
}

// AncestorReport is the status of a policy towards one object it acts on.
type AncestorReport struct {
	Group      string
	Kind       string
	Name       fleet.ObjectName
	Conditions []Condition
}
