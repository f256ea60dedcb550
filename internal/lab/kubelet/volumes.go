package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// volumes are one pod's volumes, a directory each. Those made from objects of
// the API are written as a kubelet writes them: the files lie in a hidden
// directory, "..data" is a link to it, and an update is one rename of that
// link, so that a reader sees all of it or nothing.
type volumes struct {
	w       *worker
	written map[string]map[string]file // by volume; touched by write alone
	tokens  map[string]token           // by volume and path; touched by write alone
	serial  int
}

type file struct {
	data []byte
	mode fs.FileMode
}

type token struct {
	value string
	renew time.Time
}

func newVolumes(w *worker) *volumes {
	return &volumes{w: w, written: map[string]map[string]file{}, tokens: map[string]token{}}
}

func (v *volumes) path(name string) string { return filepath.Join(v.w.dir(), "volumes", name) }

func (v *volumes) secret(name string) (*v1.Secret, error) {
	return v.w.k.Informers.Core().V1().Secrets().Lister().Secrets(v.w.namespace).Get(name)
}

func (v *volumes) configMap(name string) (*v1.ConfigMap, error) {
	return v.w.k.Informers.Core().V1().ConfigMaps().Lister().ConfigMaps(v.w.namespace).Get(name)
}

// keep writes the volumes again whenever an object of the namespace changes,
// and once a minute for tokens, until ctx ends.
func (v *volumes) keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.w.changed:
		case <-time.After(time.Minute):
		}
		if err := guard(func() error { return v.write(ctx) }); err != nil && ctx.Err() == nil {
			v.w.k.Log.Warn("could not update volumes", "pod", v.w.namespace+"/"+v.w.name, "error", err)
		}
	}
}

// write makes every volume what the API says; one that is unchanged is not
// touched.
func (v *volumes) write(ctx context.Context) error {
	for _, volume := range v.w.spec.Volumes {
		dir := v.path(volume.Name)
		if volume.EmptyDir != nil {
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o777); err != nil { // whatever the umask says
				return err
			}
			continue
		}
		if volume.HostPath != nil {
			continue
		}
		payload, err := v.payload(ctx, volume)
		if err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		if old, ok := v.written[volume.Name]; ok && maps.EqualFunc(old, payload, func(a, b file) bool { return bytes.Equal(a.data, b.data) && a.mode == b.mode }) {
			continue
		}
		v.serial++
		if err := writeAtomic(dir, fmt.Sprintf("..%d", v.serial), payload); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		v.written[volume.Name] = payload
	}
	return nil
}

// writeAtomic replaces a volume's files. A version that could not be written is
// removed, because a write that fails is tried again for as long as the pod is.
func writeAtomic(dir, version string, payload map[string]file) error {
	if err := writeFiles(filepath.Join(dir, version), payload); err != nil {
		return errors.Join(err, os.RemoveAll(filepath.Join(dir, version)))
	}
	data := filepath.Join(dir, "..data")
	old, _ := os.Readlink(data)
	if err := os.RemoveAll(data + "_tmp"); err != nil {
		return err
	}
	if err := os.Symlink(version, data+"_tmp"); err != nil {
		return err
	}
	if err := os.Rename(data+"_tmp", data); err != nil {
		return err
	}
	err := linkFiles(dir, payload)
	if old != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, old)))
	}
	return err
}

func writeFiles(dir string, payload map[string]file) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for path, f := range payload {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		// Readable for all: containers may run as any user, and nothing here
		// is anybody's secret.
		if err := os.WriteFile(full, f.data, f.mode|0o444); err != nil {
			return err
		}
	}
	return nil
}

// linkFiles makes the volume's links through "..data", and removes those of
// files that are gone.
func linkFiles(dir string, payload map[string]file) error {
	top := map[string]bool{}
	for path := range payload {
		first, _, _ := strings.Cut(path, "/")
		top[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !top[e.Name()] {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for name := range top {
		if err := os.Symlink("..data/"+name, filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

// payload is the content of a volume by path.
func (v *volumes) payload(ctx context.Context, volume v1.Volume) (map[string]file, error) {
	files := map[string]file{}
	var err error
	switch {
	case volume.Secret != nil:
		s := volume.Secret
		err = v.addSecret(files, s.SecretName, s.Items, ptr.Deref(s.Optional, false), mode(s.DefaultMode))
	case volume.ConfigMap != nil:
		c := volume.ConfigMap
		err = v.addConfigMap(files, c.Name, c.Items, ptr.Deref(c.Optional, false), mode(c.DefaultMode))
	case volume.DownwardAPI != nil:
		err = v.addFields(files, volume.DownwardAPI.Items, mode(volume.DownwardAPI.DefaultMode))
	case volume.Projected != nil:
		m := mode(volume.Projected.DefaultMode)
		for _, source := range volume.Projected.Sources {
			switch {
			case source.Secret != nil:
				err = v.addSecret(files, source.Secret.Name, source.Secret.Items, ptr.Deref(source.Secret.Optional, false), m)
			case source.ConfigMap != nil:
				err = v.addConfigMap(files, source.ConfigMap.Name, source.ConfigMap.Items, ptr.Deref(source.ConfigMap.Optional, false), m)
			case source.DownwardAPI != nil:
				err = v.addFields(files, source.DownwardAPI.Items, m)
			case source.ServiceAccountToken != nil:
				err = v.addToken(ctx, files, volume.Name, source.ServiceAccountToken)
			default:
				err = fmt.Errorf("the lab does not know this projected source")
			}
			if err != nil {
				return nil, err
			}
		}
	default:
		err = fmt.Errorf("the lab knows only emptyDir, hostPath, secret, configMap, downwardAPI and projected volumes")
	}
	return files, err
}

func mode(m *int32) fs.FileMode { return fs.FileMode(ptr.Deref(m, 0o644)) & fs.ModePerm }

func (v *volumes) addSecret(files map[string]file, name string, items []v1.KeyToPath, optional bool, m fs.FileMode) error {
	s, err := v.secret(name)
	if err != nil {
		if optional && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return addItems(files, items, s.Data, itemOptions{optional, m})
}

func (v *volumes) addConfigMap(files map[string]file, name string, items []v1.KeyToPath, optional bool, m fs.FileMode) error {
	c, err := v.configMap(name)
	if err != nil {
		if optional && apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	data := maps.Clone(c.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, s := range c.Data {
		data[k] = []byte(s)
	}
	return addItems(files, items, data, itemOptions{optional, m})
}

type itemOptions struct {
	optional bool
	mode     fs.FileMode
}

// addItems adds all keys, or those that items name at the paths they name.
func addItems(files map[string]file, items []v1.KeyToPath, data map[string][]byte, o itemOptions) error {
	if len(items) == 0 {
		for k, b := range data {
			files[k] = file{b, o.mode}
		}
		return nil
	}
	for _, item := range items {
		b, ok := data[item.Key]
		if !ok && !o.optional {
			return fmt.Errorf("key %q does not exist", item.Key)
		}
		if ok {
			m := o.mode
			if item.Mode != nil {
				m = mode(item.Mode)
			}
			files[path.Clean(item.Path)] = file{b, m}
		}
	}
	return nil
}

func (v *volumes) addFields(files map[string]file, items []v1.DownwardAPIVolumeFile, m fs.FileMode) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("the lab knows only fieldRef in downwardAPI volumes")
		}
		value, err := v.w.field(item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		files[path.Clean(item.Path)] = file{[]byte(value), m}
	}
	return nil
}

// addToken asks for a ServiceAccount token bound to the pod, and for a new one
// when half of the old one's time is over.
func (v *volumes) addToken(ctx context.Context, files map[string]file, volume string, p *v1.ServiceAccountTokenProjection) error {
	key := volume + "/" + p.Path
	t, ok := v.tokens[key]
	if !ok || time.Now().After(t.renew) {
		request := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
			ExpirationSeconds: p.ExpirationSeconds,
			BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: v.w.name, UID: v.w.uid},
		}}
		if p.Audience != "" {
			request.Spec.Audiences = []string{p.Audience}
		}
		got, err := v.w.k.Client.CoreV1().ServiceAccounts(v.w.namespace).CreateToken(ctx, v.w.spec.ServiceAccountName, request, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("token of service account %s: %w", v.w.spec.ServiceAccountName, err)
		}
		t = token{got.Status.Token, time.Now().Add(time.Until(got.Status.ExpirationTimestamp.Time) / 2)}
		v.tokens[key] = t
	}
	files[path.Clean(p.Path)] = file{[]byte(t.value), 0o644}
	return nil
}

// mounts are a container's volume mounts, outer paths before inner ones.
func (v *volumes) mounts(c v1.Container) ([]mount, error) {
	var all []mount
	for _, m := range c.VolumeMounts {
		source := v.path(m.Name)
		for _, volume := range v.w.spec.Volumes {
			if volume.Name == m.Name && volume.HostPath != nil {
				source = volume.HostPath.Path
			}
		}
		if m.SubPathExpr != "" {
			return nil, fmt.Errorf("the lab does not know subPathExpr (volume mount %s)", m.Name)
		}
		if m.SubPath != "" {
			source = filepath.Join(source, m.SubPath)
			if _, err := os.Stat(source); os.IsNotExist(err) {
				if err := os.MkdirAll(source, 0o777); err != nil {
					return nil, err
				}
			}
		}
		all = append(all, mount{source: source, target: m.MountPath, readOnly: m.ReadOnly})
	}
	slices.SortFunc(all, func(a, b mount) int { return strings.Compare(a.target, b.target) })
	return all, nil
}
