package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// Close ends what runs; Stop is patient with a program that takes its time.
func TestGroup(t *testing.T) {
	ended := make(chan string, 3)
	g := NewGroup(func(p *Process) { ended <- p.name })
	log := filepath.Join(t.TempDir(), "log")
	patient, err := g.Start(Spec{Args: []string{"sh", "-c", "trap 'sleep 0.2; echo done; exit 0' TERM; echo up; while :; do sleep 0.02; done"}, Log: log})
	testkit.Must(t, err)
	stubborn, err := g.Start(Spec{Args: []string{"sleep", "1000"}})
	testkit.Must(t, err)
	testkit.Eventually(t, "the program is up", func() bool { return contains(log, "up") })
	patient.Stop(10 * time.Second)
	if !contains(log, "done") {
		t.Error("Stop did not let the program end by itself")
	}
	if _, err := g.Start(Spec{Args: []string{"false"}}); err != nil {
		t.Fatal(err)
	}
	if name := <-ended; name != "false" {
		t.Errorf("%s ended unexpectedly, want only false", name)
	}
	g.Close()
	select {
	case <-stubborn.Done():
	default:
		t.Error("Close left a process running")
	}
	if _, err := g.Start(Spec{Args: []string{"true"}}); err == nil {
		t.Error("a closed Group starts processes")
	}
}

// A process ends with its owner that is killed.
func TestOwnerKilled(t *testing.T) {
	if os.Getenv("PROCESS_TEST_OWNER") != "" {
		p, err := NewGroup(nil).Start(Spec{Args: []string{"sleep", "1000"}})
		testkit.Must(t, err)
		_ = os.WriteFile(os.Getenv("PROCESS_TEST_OWNER"), []byte(strconv.Itoa(p.PID())+"\n"), 0o644)
		select {}
	}
	file := filepath.Join(t.TempDir(), "pid")
	owner := exec.Command("/proc/self/exe", "-test.run=TestOwnerKilled")
	owner.Env = append(os.Environ(), "PROCESS_TEST_OWNER="+file)
	testkit.Must(t, owner.Start())
	testkit.Eventually(t, "the owner has started a process", func() bool { return contains(file, "\n") })
	data, err := os.ReadFile(file)
	testkit.Must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	testkit.Must(t, err)
	testkit.Must(t, owner.Process.Signal(syscall.SIGKILL))
	_ = owner.Wait()
	testkit.Eventually(t, "the process is gone", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ") // gone, or not yet reaped by its new parent
	})
}

func contains(file, text string) bool {
	data, _ := os.ReadFile(file)
	return strings.Contains(string(data), text)
}
