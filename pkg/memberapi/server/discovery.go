package server

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/pkg/memberapi"
)

// discovery is what kubectl asks before it asks for objects; nil: the path is
// another.
func discovery(path string) any {
	path = strings.TrimSuffix(path, "/")
	groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, r := range []memberapi.Resource{memberapi.EndpointSlices, memberapi.ServiceImports} {
		version := metav1.GroupVersionForDiscovery{GroupVersion: r.GroupVersion.String(), Version: r.Version}
		group := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: r.Group,
			Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
		switch path {
		case "/apis/" + r.Group:
			return group
		case "/apis/" + r.GroupVersion.String():
			return metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: r.GroupVersion.String(),
				APIResources: []metav1.APIResource{{Name: r.Name, SingularName: strings.ToLower(r.Kind), Namespaced: true, Kind: r.Kind,
					Verbs: metav1.Verbs{"get", "list", "watch"}}}}
		}
		groups.Groups = append(groups.Groups, group)
	}
	switch path {
	case "/apis":
		return groups
	case "/api":
		return metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{}}
	}
	return nil
}
