package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/testkit"
)

// A cut cluster swallows packets: connections to it and from it neither open
// nor fail, its own API server and REST go on, and all is well after Restore.
func TestCut(t *testing.T) {
	c := fleet.Members["us-west"]
	apply(t, c, "cut", echo)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "cut", "app=echo", 2))
	pods, err := c.Client.CoreV1().Pods("cut").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	pod := net.JoinHostPort(pods.Items[0].Status.PodIP, "8080")
	hub := net.JoinHostPort(fleet.Hub.NodeAddress, "6443")
	in, out, elsewhere := fleet.Dialer("us"), fleet.DialerAt("us-west"), fleet.DialerAt("us-east")
	if err := try(in, pod, 2*time.Second); err != nil {
		t.Fatal("before the cut: ", err)
	}
	if err := try(out, hub, 2*time.Second); err != nil {
		t.Fatal("before the cut: ", err)
	}
	testkit.Must(t, fleet.Cut("us-west"))
	defer func() { _ = fleet.Restore("us-west") }()
	// Address resolution gives up after 3 s: silence must last longer.
	t.Run("silence", func(t *testing.T) {
		for what, dial := range map[string]func() error{
			"from a client to a pod":   func() error { return try(in, pod, 5*time.Second) },
			"from the node to the hub": func() error { return try(out, hub, 5*time.Second) },
			"from a cluster to a pod":  func() error { return try(elsewhere, pod, 5*time.Second) },
			"from the hub to a pod":    func() error { return try(fleet.DialerAt("hub"), pod, 5*time.Second) },
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				if err := dial(); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
					t.Errorf("want silence, got %v", err)
				}
			})
		}
	})
	t.Run("its own control plane", func(t *testing.T) {
		if _, err := c.Client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
		if err := try(elsewhere, hub, 2*time.Second); err != nil {
			t.Error("another cluster: ", err)
		}
	})
	testkit.Must(t, fleet.Restore("us-west"))
	if err := try(in, pod, 3*time.Second); err != nil {
		t.Error("after Restore: ", err)
	}
}

// Two pods that are cut from each other do not reach each other, new connections and old ones swallowed alike, and
// everybody else reaches both.
func TestCutBetween(t *testing.T) {
	apply(t, fleet.Hub, "between", echo)
	testkit.Must(t, fleet.Hub.AwaitPods(within(t, 20*time.Second), "between", "app=echo", 2))
	pods, err := fleet.Hub.Client.CoreV1().Pods("between").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	a, b := pods.Items[0], pods.Items[1]
	from := fleet.Hub.DialerIn("between", a.Name)
	to := net.JoinHostPort(b.Status.PodIP, "8080")
	old, err := from(within(t, 5*time.Second), "tcp", to)
	testkit.Must(t, err)
	defer old.Close()
	testkit.Must(t, fleet.CutBetween(a.Status.PodIP, b.Status.PodIP))
	if err := try(from, to, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("a new connection: want silence, got %v", err)
	}
	_, err = fmt.Fprintf(old, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	testkit.Must(t, err)
	testkit.Must(t, old.SetReadDeadline(time.Now().Add(time.Second)))
	if n, err := old.Read(make([]byte, 1)); n > 0 || !os.IsTimeout(err) {
		t.Errorf("the old connection: want silence, got %d bytes, %v", n, err)
	}
	for _, pod := range pods.Items {
		if err := try(fleet.DialerAt("us-west"), net.JoinHostPort(pod.Status.PodIP, "8080"), 2*time.Second); err != nil {
			t.Errorf("from another cluster to %s: %v", pod.Name, err)
		}
	}
	testkit.Must(t, fleet.RestoreBetween(a.Status.PodIP, b.Status.PodIP))
	if err := try(from, to, 5*time.Second); err != nil {
		t.Error("after RestoreBetween: ", err)
	}
	if err := fleet.CutBetween("172.18.0.1", "172.18.0.2"); err == nil {
		t.Error("two addresses that no pod has were cut")
	}
}

func try(dial func(context.Context, string, string) (net.Conn, error), address string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
	if err == nil {
		conn.Close()
	}
	return err
}

// Nothing leads out of the lab: no network has a route to the Internet.
func TestNoWayOut(t *testing.T) {
	for _, node := range []string{"hub", "us-west", "edge-us", "client-us"} {
		err := try(fleet.DialerAt(node), "192.0.2.1:80", time.Second)
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("from %s: %v, want network is unreachable", node, err)
		}
	}
}

const childVariable = "LAB_TEST_CHILD"

// child is a lab that a test starts beside its own, and that never ends.
func child() {
	c := fleet.Members["us-west"]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := errors.Join(c.Apply(ctx, []byte(strings.ReplaceAll(echo, "NAMESPACE", "default"))), c.AwaitPods(ctx, "default", "app=echo", 2))
	fmt.Println("child:", err)
	select {}
}

// A second lab starts beside the first; killed with SIGKILL, it leaves no
// process behind, and the first has not noticed it.
func TestSecondLabKilled(t *testing.T) {
	before := namespaces(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"=1", "LAB_LOG_DIR=")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	testkit.Must(t, err)
	testkit.Must(t, cmd.Start())
	timer := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "child: <nil>\n" {
		t.Errorf("the second lab says %q", line)
	}
	during := namespaces(t)
	if during.processes < before.processes+10 {
		t.Errorf("only %d processes in other process namespaces; does the second lab run?", during.processes)
	}
	testkit.Must(t, cmd.Process.Signal(syscall.SIGKILL))
	_ = cmd.Wait()
	eventually(t, within(t, 10*time.Second), "no process of the second lab is left", func() (bool, string) {
		now := namespaces(t)
		return now == before, fmt.Sprintf("before %+v, with the second lab %+v, now %+v", before, during, now)
	})
	if _, err := fleet.Members["us-west"].Client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error("the first lab: ", err)
	}
}

// count is what of other labs is visible: processes in other process
// namespaces, and the network namespaces that they hold.
type count struct{ processes, networks int }

func namespaces(t *testing.T) count {
	t.Helper()
	own, err := os.Readlink("/proc/self/ns/pid")
	testkit.Must(t, err)
	entries, err := os.ReadDir("/proc")
	testkit.Must(t, err)
	networks := map[string]bool{}
	var c count
	for _, e := range entries {
		pid, err := os.Readlink("/proc/" + e.Name() + "/ns/pid")
		if err != nil || pid == own {
			continue
		}
		c.processes++
		if n, err := os.Readlink("/proc/" + e.Name() + "/ns/net"); err == nil {
			networks[n] = true
		}
	}
	c.networks = len(networks)
	return c
}
