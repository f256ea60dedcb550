package testkit

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// InOwnNetwork runs the calling test again in a network namespace of its own, whose loopback is up, and returns true only
// there. So a test may change the kernel's settings, and lose packets.
func InOwnNetwork(t *testing.T) bool {
	t.Helper()
	const inside = "CROSSWAY_TEST_NETWORK"
	if os.Getenv(inside) == "" {
		runtime.LockOSThread() // Pdeathsig is sent when this thread ends
		defer runtime.UnlockOSThread()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=own")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		t.Logf("in a network of its own:\n%s", out)
		Must(t, err)
		return false
	}
	loopback, err := netlink.LinkByName("lo")
	Must(t, err)
	Must(t, netlink.LinkSetUp(loopback))
	return true
}

// SetKernel changes a setting of the network namespace that InOwnNetwork made.
func SetKernel(t *testing.T, name, value string) {
	t.Helper()
	Must(t, os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o644))
}
