package kubelet

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/ko-app"

// environment is the container's environment: the image's, the API server's
// address, envFrom, env.
func (c *container) environment(image Image) (map[string]string, error) {
	env := map[string]string{
		"PATH": defaultPath, "HOSTNAME": c.w.hostname(), "HOME": "/root",
		"KUBERNETES_SERVICE_HOST": c.w.k.APIServerHost, "KUBERNETES_SERVICE_PORT": c.w.k.APIServerPort, "KUBERNETES_SERVICE_PORT_HTTPS": c.w.k.APIServerPort,
	}
	maps.Copy(env, image.Env)
	for _, from := range c.spec.EnvFrom {
		values, err := c.w.envFrom(from)
		if err != nil {
			return nil, err
		}
		for k, v := range values {
			env[from.Prefix+k] = v
		}
	}
	for _, e := range c.spec.Env {
		value, found := expand(e.Value, env), true
		if e.ValueFrom != nil {
			var err error
			if value, found, err = c.w.envValue(e.ValueFrom, c.spec); err != nil {
				return nil, fmt.Errorf("env %s: %w", e.Name, err)
			}
		}
		if found {
			env[e.Name] = value
		}
	}
	return env, nil
}

func (w *worker) envFrom(from v1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := w.volumes.configMap(from.ConfigMapRef.Name)
		if apierrors.IsNotFound(err) && ptr.Deref(from.ConfigMapRef.Optional, false) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		s, err := w.volumes.secret(from.SecretRef.Name)
		if apierrors.IsNotFound(err) && ptr.Deref(from.SecretRef.Optional, false) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		values := map[string]string{}
		for k, v := range s.Data {
			values[k] = string(v)
		}
		return values, nil
	}
	return nil, nil
}

func (w *worker) envValue(from *v1.EnvVarSource, spec v1.Container) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = w.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		return resourceValue(from.ResourceFieldRef, spec), true, nil
	case from.SecretKeyRef != nil:
		s, err := w.volumes.secret(from.SecretKeyRef.Name)
		var data []byte
		if err == nil {
			data, found = s.Data[from.SecretKeyRef.Key]
		}
		return string(data), found, missing(err, found, ptr.Deref(from.SecretKeyRef.Optional, false), from.SecretKeyRef.Key)
	case from.ConfigMapKeyRef != nil:
		cm, err := w.volumes.configMap(from.ConfigMapKeyRef.Name)
		if err == nil {
			value, found = cm.Data[from.ConfigMapKeyRef.Key]
		}
		return value, found, missing(err, found, ptr.Deref(from.ConfigMapKeyRef.Optional, false), from.ConfigMapKeyRef.Key)
	}
	return "", false, fmt.Errorf("valueFrom of an unknown kind")
}

// missing is the error of a reference to a key, nil where it was found or is
// optional.
func missing(err error, found, optional bool, key string) error {
	switch {
	case found, optional && (err == nil || apierrors.IsNotFound(err)):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("key %q does not exist", key)
}

var subscript = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.+)'\]$`)

// field is a value of the downward API.
func (w *worker) field(path string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := subscript.FindStringSubmatch(path); m != nil {
		if m[1] == "labels" {
			return w.pod.Labels[m[2]], nil
		}
		return w.pod.Annotations[m[2]], nil
	}
	switch path {
	case "metadata.name":
		return w.name, nil
	case "metadata.namespace":
		return w.namespace, nil
	case "metadata.uid":
		return string(w.uid), nil
	case "metadata.labels":
		return pairs(w.pod.Labels), nil
	case "metadata.annotations":
		return pairs(w.pod.Annotations), nil
	case "spec.nodeName":
		return w.k.Name, nil
	case "spec.serviceAccountName":
		return w.spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return w.k.Network.Address.String(), nil
	case "status.podIP":
		return w.addressLocked(), nil
	case "status.podIPs":
		if w.network != nil {
			return w.network.Address.String() + "," + w.network.Address6.String(), nil
		}
		return w.addressLocked(), nil
	}
	return "", fmt.Errorf("the lab does not know the field %q", path)
}

func pairs(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%s=%q\n", k, m[k])
	}
	return b.String()
}

// resourceValue is a container's limit or request, in units of the divisor,
// rounded up; without a limit it is a plain node's size.
func resourceValue(ref *v1.ResourceFieldSelector, spec v1.Container) string {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := spec.Resources.Limits
	if kind == "requests" {
		list = spec.Resources.Requests
	}
	quantity, ok := list[v1.ResourceName(name)]
	if !ok && kind == "limits" {
		quantity = map[string]resource.Quantity{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi")}[name]
	}
	divisor := ref.Divisor.MilliValue()
	if divisor == 0 {
		divisor = 1000
	}
	return strconv.FormatInt((quantity.MilliValue()+divisor-1)/divisor, 10)
}

var reference = regexp.MustCompile(`\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)`)

// expand replaces $(NAME); an unknown name stays as it is, $$ is one $.
func expand(s string, env map[string]string) string {
	return reference.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		if v, ok := env[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}

// commandLine combines image and container as Kubernetes does: command
// replaces the entrypoint and drops the image's Cmd, args replace the Cmd.
func commandLine(image Image, spec v1.Container, env map[string]string) []string {
	command, args := image.Entrypoint, image.Cmd
	if len(spec.Command) > 0 {
		command, args = spec.Command, nil
	}
	if len(spec.Args) > 0 {
		args = spec.Args
	}
	var line []string
	for _, s := range slices.Concat(command, args) {
		line = append(line, expand(s, env))
	}
	return line
}

func envList(env map[string]string) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// hostname is the pod's, or its node's with hostNetwork.
func (w *worker) hostname() string {
	switch {
	case w.spec.HostNetwork:
		return w.k.Name
	case w.spec.Hostname != "":
		return w.spec.Hostname
	}
	return w.name[:min(len(w.name), 63)]
}

// etcFiles are the files that a kubelet writes for each pod.
func (w *worker) etcFiles() map[string]string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost\n" + w.address() + "\t" + w.hostname() + "\n"
	for _, a := range w.spec.HostAliases {
		hosts += a.IP + "\t" + strings.Join(a.Hostnames, " ") + "\n"
	}
	resolv := "nameserver " + w.k.DNS + "\nsearch " + w.namespace + ".svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
	return map[string]string{"etc/hosts": hosts, "etc/resolv.conf": resolv, "etc/hostname": w.hostname() + "\n"}
}
