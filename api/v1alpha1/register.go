package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is crossway.dev/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "crossway.dev", Version: "v1alpha1"}

// SchemeBuilder collects the types of this package.
var SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme adds the types of this package to a scheme.
var AddToScheme = SchemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&MemberCluster{}, &MemberClusterList{},
		&MemberExport{}, &MemberExportList{},
		&FleetService{}, &FleetServiceList{},
		&EdgePool{}, &EdgePoolList{},
		&GatewayParameters{}, &GatewayParametersList{},
		&BackendPolicy{}, &BackendPolicyList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
