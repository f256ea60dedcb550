package kubelet

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Image says what a container image is on this machine.
type Image struct {
	// Entrypoint and Cmd are what the image's config would say.
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd,omitempty"`
	// Env is added before the container's own.
	Env map[string]string `json:"env,omitempty"`
	// Files maps paths inside the container to files of this machine, for
	// instance {"/usr/local/bin/envoy": "/opt/envoy/envoy"}.
	Files map[string]string `json:"files,omitempty"`
}

// Images maps image repositories, without tag and digest, to Images. A pod's
// image matches an entry of the same repository, else one of the same path on
// whatever registry (registry.k8s.io/gateway-api/echo-basic matches
// gateway-api/echo-basic), else one named by the path's last element.
type Images map[string]Image

// Program is an Image with one program, where ko puts it: in /ko-app, which is
// last on PATH.
func Program(file string) Image {
	inside := path.Join("/ko-app", path.Base(file))
	return Image{Entrypoint: []string{inside}, Files: map[string]string{inside: file}}
}

// With returns the Images with those of a YAML or JSON file added.
func (i Images) With(file string) (Images, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	more := Images{}
	if err := yaml.UnmarshalStrict(data, &more); err != nil {
		return nil, fmt.Errorf("image table %s: %w", file, err)
	}
	all := maps.Clone(i)
	maps.Copy(all, more)
	return all, nil
}

func (i Images) find(reference string) (Image, error) {
	repository := Repository(reference)
	if image, ok := i[repository]; ok {
		return image, nil
	}
	for _, name := range slices.Sorted(maps.Keys(i)) {
		if withoutHost(name) == withoutHost(repository) {
			return i[name], nil
		}
	}
	if image, ok := i[path.Base(repository)]; ok {
		return image, nil
	}
	return Image{}, fmt.Errorf("no entry for the image repository %q in the lab's image table", repository)
}

// withoutHost is a repository without its registry. As in a container runtime,
// the first element names a registry where it has a dot or a port.
func withoutHost(repository string) string {
	host, rest, found := strings.Cut(repository, "/")
	if found && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return rest
	}
	return repository
}

// Repository is an image reference without tag and digest.
func Repository(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	if colon := strings.LastIndex(reference, ":"); colon > strings.LastIndex(reference, "/") {
		reference = reference[:colon]
	}
	return reference
}
