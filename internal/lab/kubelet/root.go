package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mount is one volume mount: a file or directory of this machine at a path
// inside the container.
type mount struct {
	source, target string
	readOnly       bool
}

// What a container sees of the machine, read-only: its programs and libraries
// and how to find users and certificate authorities. /usr/local stays empty,
// for the image's files.
var (
	usrDirs  = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "share"}
	rootDirs = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} // links into /usr, or directories
	etcFiles = []string{"alternatives", "ca-certificates", "group", "localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "protocols", "services", "ssl"}
	devices  = []string{"full", "null", "random", "tty", "urandom", "zero"}
	emptied  = []string{"dev/shm", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "var/log", "var/run", "var/tmp"}
)

// mountRoot builds the container's root at s.root, in the calling thread's own
// mount namespace, so it vanishes with the container's last process.
func (s sandbox) mountRoot() error {
	if err := os.MkdirAll(s.root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("root", s.root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := s.mountSystem(); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for path, content := range s.files {
		if err := os.WriteFile(filepath.Join(s.root, path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for inside, file := range s.image.Files {
		if err := s.bind(mount{source: file, target: inside, readOnly: true}); err != nil {
			return fmt.Errorf("image file: %w", err)
		}
	}
	for _, m := range s.mounts {
		if err := s.bind(m); err != nil {
			return fmt.Errorf("volume mount: %w", err)
		}
	}
	if s.dir != "" {
		if err := os.MkdirAll(s.inside(s.dir), 0o755); err != nil {
			return err
		}
	}
	if s.security.readOnly {
		return readOnly(s.root, 0)
	}
	return nil
}

func (s sandbox) mountSystem() error {
	for _, dir := range emptied {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp", "dev/shm", "run"} {
		if err := os.Chmod(filepath.Join(s.root, dir), 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	var views []string
	for _, dir := range usrDirs {
		views = append(views, "/usr/"+dir)
	}
	for _, dir := range rootDirs {
		views = append(views, "/"+dir)
	}
	for _, name := range etcFiles {
		views = append(views, "/etc/"+name)
	}
	for _, view := range views {
		if err := s.view(view); err != nil {
			return err
		}
	}
	for _, name := range devices {
		if err := s.bind(mount{source: "/dev/" + name, target: "/dev/" + name}); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/proc", "/sys"} {
		if err := unix.Mount(dir, filepath.Join(s.root, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return errors.Join(
		os.Symlink("/proc/self/fd", filepath.Join(s.root, "dev/fd")), os.Symlink("/proc/self/fd/0", filepath.Join(s.root, "dev/stdin")),
		os.Symlink("/proc/self/fd/1", filepath.Join(s.root, "dev/stdout")), os.Symlink("/proc/self/fd/2", filepath.Join(s.root, "dev/stderr")))
}

// view shows a path of the machine at the same place, read-only; a link is
// copied, what the machine lacks is left out.
func (s sandbox) view(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, filepath.Join(s.root, path))
	}
	return s.bind(mount{source: path, target: path, readOnly: true})
}

// inside is where a path of the container is on this machine. ".." ends at the
// container's root.
func (s sandbox) inside(path string) string {
	return filepath.Join(s.root, filepath.Join("/", path))
}

// bind shows a file or directory of the machine inside the root.
func (s sandbox) bind(m mount) error {
	target := s.inside(m.target)
	info, err := os.Stat(m.source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		var f *os.File
		if f, err = os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644); err == nil {
			f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(m.source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("%s at %s: %w", m.source, m.target, err)
	}
	if m.readOnly {
		return readOnly(target, unix.AT_RECURSIVE)
	}
	return nil
}

// readOnly adds one attribute and keeps those that the machine locked, which
// a remount would have to repeat.
func readOnly(path string, flags uint) error {
	if err := unix.MountSetattr(unix.AT_FDCWD, path, flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}
