package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"crossway.dev/crossway/internal/lab/install"
)

// Entry says what happens before a program enters the lab's namespaces, where
// there is no way out any more.
type Entry struct {
	// Build names the project's own programs to build before entering ("hub",
	// "member-agent", "crossway", "echo"; nil: all), Race builds them with the
	// race detector. They become the images crossway/<name>.
	Build []string
	Race  bool
	// HubFaults also builds the image crossway/hub-faults, the hub with --disable, and HubNext crossway/hub-next, the same
	// hub with NextVersion.
	HubFaults, HubNext bool
	// Prepare, where set, does what else needs the machine's network.
	Prepare func(ctx context.Context, progress io.Writer) error
}

// The role of a process, passed by environment: the program as it was called
// ("" ), the first process of the namespaces, and the program inside.
const (
	roleVariable = "CROSSWAY_LAB_ROLE"
	roleInit     = "init"
	roleInside   = "inside"
)

// stateDir is a file system in memory that only the lab sees.
const stateDir = "/run"

// Enter is called first in main or TestMain, and returns inside the lab's
// namespaces only. As it was called, the program starts itself again as
//
//	program (waits) -> init (process 1: mounts, reaps) -> program (inside)
//
// and exits with the inner one's status. When the outer process dies, however
// it does, the kernel kills process 1 (PR_SET_PDEATHSIG), and with it every
// process of its namespace, and with those the networks and mounts.
func Enter(e Entry) {
	role := os.Getenv(roleVariable)
	os.Unsetenv(roleVariable) // so that a program started inside may enter a lab of its own
	var code int
	var err error
	switch role {
	case roleInside:
		syscall.CloseOnExec(listenFD)
		return
	case roleInit:
		code, err = initialize()
	default:
		code, err = enter(e)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "enter the lab:", err)
		code = 1
	}
	os.Exit(code)
}

// Inside reports whether Enter has been passed.
func Inside() bool { return os.Getpid() != 1 && insideMark() }

func insideMark() bool {
	_, err := os.Stat(stateDir + "/crossway-lab")
	return err == nil
}

func enter(e Entry) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if _, err := install.Ensure(ctx, os.Stderr); err != nil {
		return 0, err
	}
	bin, err := Build(ctx, os.Stderr, e.Race, e.Build...)
	for variant, wanted := range map[string]bool{"hub-faults": e.HubFaults, "hub-next": e.HubNext} {
		if err == nil && wanted {
			err = buildHub(ctx, bin, e.Race, variant)
		}
	}
	if err != nil {
		return 0, err
	}
	if e.Prepare != nil {
		if err := e.Prepare(ctx, os.Stderr); err != nil {
			return 0, err
		}
	}
	stop()
	socket, err := serveListen()
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread() // the kernel watches this thread for PR_SET_PDEATHSIG
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // the terminal's ^C reaches us alone, and we pass it on
	}
	if uid := os.Getuid(); uid != 0 {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // ended by signals, see forward
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{socket} // listenFD
	cmd.Env = append(os.Environ(), roleVariable+"="+roleInit, binVariable+"="+bin,
		"PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin") // of nft, which a plain user's PATH may lack
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("new namespaces (needs root, or unprivileged user namespaces): %w", err)
	}
	socket.Close()
	forward(cmd.Process.Pid)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exitCode(exit.Sys().(syscall.WaitStatus)), nil
	}
	return 0, err
}

// initialize is process 1 of the lab.
func initialize() (int, error) {
	if err := mounts(); err != nil {
		return 0, err
	}
	inside, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), roleVariable+"="+roleInside), Files: []uintptr{0, 1, 2, listenFD},
	})
	if err != nil {
		return 0, err
	}
	forward(inside)
	for { // reaps orphans, too: they become children of process 1
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case pid == inside && (status.Exited() || status.Signaled()):
			return exitCode(status), nil
		}
	}
}

func mounts() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"crossway-lab", stateDir, "tmpfs", unix.MS_NODEV},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return os.Mkdir(stateDir+"/crossway-lab", 0o755)
}

// forward passes on the signals that ask a program to end.
func forward(pid int) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal)) // ESRCH: it has just ended, and so do we
		}
	}()
}

func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
