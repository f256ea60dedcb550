package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// sandbox is everything that a container's process is started with.
type sandbox struct {
	ns        netns.NsHandle
	root      string // directory of this machine that becomes the root
	args, env []string
	dir       string
	hostname  string
	files     map[string]string // small files below /etc, by path
	image     Image
	mounts    []mount
	security  security
	log       io.WriteCloser
}

// sandboxed is a running sandbox.
type sandboxed struct {
	sandbox
	cmd  *exec.Cmd
	mnt  *os.File // its mount namespace
	top  *os.File // "/" of the lab in it, which may be less than its root: see exec
	uts  *os.File
	done chan struct{} // closed when it has ended; code is set before
	code int
}

type security struct {
	uid, gid *int64
	readOnly bool
}

func securityOf(pod v1.PodSpec, c v1.Container) security {
	var s security
	if p := pod.SecurityContext; p != nil {
		s.uid, s.gid = p.RunAsUser, p.RunAsGroup
	}
	if p := c.SecurityContext; p != nil {
		if p.RunAsUser != nil {
			s.uid = p.RunAsUser
		}
		if p.RunAsGroup != nil {
			s.gid = p.RunAsGroup
		}
		s.readOnly = p.ReadOnlyRootFilesystem != nil && *p.ReadOnlyRootFilesystem
	}
	return s
}

// credential is the user to run as. A lab that runs as a plain user knows no
// other user ids, and runs everything as its own root.
func (s security) credential() *syscall.Credential {
	if s.uid == nil || *s.uid == 0 || !manyUsers() {
		return nil
	}
	gid := *s.uid
	if s.gid != nil {
		gid = *s.gid
	}
	return &syscall.Credential{Uid: uint32(*s.uid), Gid: uint32(gid)}
}

func manyUsers() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, count uint64
	_, scanErr := fmt.Sscan(string(data), &inside, &outside, &count)
	return err == nil && scanErr == nil && count > 65536
}

// launch starts the process on a thread that has mount and host name
// namespaces of its own and is inside the pod's network namespace; a child
// inherits them, and the thread ends with its goroutine.
func launch(s sandbox) (*sandboxed, error) {
	p := &sandboxed{sandbox: s, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		started <- guard(p.start)
	}()
	if err := <-started; err != nil {
		p.closeNamespaces()
		return nil, err
	}
	go func() {
		p.code = exitCode(p.cmd.Wait())
		p.kill() // what it left behind in its process group
		p.log.Close()
		p.closeNamespaces()
		close(p.done)
	}()
	return p, nil
}

func (p *sandboxed) closeNamespaces() {
	for _, f := range []*os.File{p.mnt, p.uts, p.top} {
		if f != nil {
			f.Close()
		}
	}
}

func (p *sandboxed) start() (err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := netns.Set(p.ns); err != nil {
		return fmt.Errorf("enter the pod's network: %w", err)
	}
	if err := unix.Sethostname([]byte(p.hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := p.sandbox.mountRoot(); err != nil {
		return err
	}
	if p.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return err
	}
	if p.uts, err = os.Open("/proc/thread-self/ns/uts"); err != nil {
		return err
	}
	if p.top, err = os.Open("/"); err != nil {
		return err
	}
	p.cmd = exec.Command(p.args[0], p.args[1:]...) //nolint:noctx // ended by terminate and kill
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.confine(p.cmd, p.env)
	return p.cmd.Start()
}

// confine lets a command run inside the root.
func (p *sandboxed) confine(cmd *exec.Cmd, env []string) {
	cmd.Err = nil // of looking the program up in the wrong root
	cmd.Path = p.lookPath(cmd.Args[0], env)
	cmd.Env, cmd.Dir = env, "/"
	if p.dir != "" {
		cmd.Dir = p.dir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: p.root, Setpgid: true, Credential: p.security.credential()}
	cmd.WaitDelay = 2 * time.Second // grandchildren may hold the log open
}

// lookPath finds a program by the PATH of env, inside the root.
func (p *sandboxed) lookPath(name string, env []string) string {
	if strings.Contains(name, "/") {
		return name
	}
	path := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(filepath.Join(p.root, candidate)); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return candidate
		}
	}
	return name // and the kernel says that it is not there
}

// terminate asks the container's first process to end, and only that one.
func (p *sandboxed) terminate() {
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // ended meanwhile
	}
}

// kill ends the container's first process and what it left in its group.
func (p *sandboxed) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) } // ESRCH: nothing is left

// execution is a command run inside a running container.
type execution struct {
	args, env   []string
	in          io.Reader
	out, errOut io.Writer
}

// exec runs a command in the container's namespaces and root.
func (p *sandboxed) exec(ctx context.Context, e execution) error {
	if len(e.args) == 0 {
		return errors.New("no command to run")
	}
	cmd := exec.CommandContext(ctx, e.args[0], e.args[1:]...)
	cmd.Stdout, cmd.Stderr = e.out, e.errOut
	started := make(chan error)
	var stdin io.WriteCloser
	go func() {
		runtime.LockOSThread() // never unlocked
		started <- guard(func() (err error) {
			// A thread that shares its working directory may not change its mounts.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			for _, f := range []*os.File{p.mnt, p.uts} {
				if err := unix.Setns(int(f.Fd()), 0); err != nil {
					return fmt.Errorf("enter the container: %w", err)
				}
			}
			// setns(2) leads to the namespace's root, which is out of a chroot
			// that the lab may have been started in.
			if err := errors.Join(p.top.Chdir(), unix.Chroot(".")); err != nil {
				return fmt.Errorf("enter the container: %w", err)
			}
			if err := netns.Set(p.ns); err != nil {
				return err
			}
			p.confine(cmd, e.env)
			if e.in != nil {
				if stdin, err = cmd.StdinPipe(); err != nil {
					return err
				}
			}
			return cmd.Start()
		})
	}()
	if err := <-started; err != nil {
		return err
	}
	if e.in != nil { // not cmd.Stdin: a client that keeps it open must not keep us waiting
		go func() {
			_, _ = io.Copy(stdin, e.in)
			stdin.Close()
		}()
	}
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return err
}
