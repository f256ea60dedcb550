package memberapi

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// kindNamespaces is the kind in the details of a NotImported.
const kindNamespaces = "namespaces"

// NotImported is the API's answer to a request for objects of one namespace that a member
// may not import. An agent knows by it that what it has of the namespace is to go; a
// missing object alone (404) is no such word.
func NotImported(cluster fleet.ClusterName, namespace string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 403, Reason: metav1.StatusReasonForbidden,
		Message: fmt.Sprintf("MemberCluster %q may not import namespace %q: spec.imports.namespaces, or spec.exports.namespaces where there is no spec.imports, does not have it", cluster, namespace),
		Details: &metav1.StatusDetails{Kind: kindNamespaces, Name: namespace},
	}}
}

// IsNotImported tells whether an error is the answer NotImported about a namespace. A
// member that is not accepted, or a proxy on the way, is answered 403 as well.
func IsNotImported(err error, namespace string) bool {
	var status apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == kindNamespaces && details.Name == namespace
}
