package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
)

// Spec says what to run.
type Spec struct {
	Args []string // the program's path, then its arguments
	Env  []string // beside the caller's own
	Log  string   // file that takes stdout and stderr, appended to
	// Namespace is the network namespace to run in; netns.None() or zero
	// stays in the caller's.
	Namespace netns.NsHandle
}

// Group owns processes. The kernel sends SIGKILL to a child when the *thread*
// that forked it ends, so one thread, kept for the Group's life, forks them all.
type Group struct {
	unexpected func(*Process)
	requests   chan request
	mu         sync.Mutex // guards all and closed
	all        []*Process
	closed     bool
}

type request struct {
	spec Spec
	cmd  *exec.Cmd
	done chan error
}

// Process is one running program.
type Process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	asked atomic.Bool // to end
}

// NewGroup returns an empty Group; Close ends it. unexpected, if
// not nil, is called for each process that ends without having been asked to.
func NewGroup(unexpected func(*Process)) *Group {
	g := &Group{unexpected: unexpected, requests: make(chan request)}
	go g.fork()
	return g
}

// fork starts every process of the Group, on one thread. The thread is not
// unlocked, so it ends with this goroutine.
func (g *Group) fork() {
	runtime.LockOSThread()
	home, err := netns.Get()
	for r := range g.requests {
		if err != nil {
			r.done <- err
			continue
		}
		r.done <- startIn(r.spec.Namespace, home, r.cmd)
	}
	home.Close()
}

func startIn(ns, home netns.NsHandle, cmd *exec.Cmd) error {
	if ns <= 0 {
		return cmd.Start()
	}
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return errors.Join(cmd.Start(), netns.Set(home))
}

// Start starts a process. It returns once the program is executing, not once
// it is ready.
func (g *Group) Start(spec Spec) (*Process, error) {
	p := &Process{name: filepath.Base(spec.Args[0]), log: spec.Log, done: make(chan struct{})}
	p.cmd = exec.Command(spec.Args[0], spec.Args[1:]...) //nolint:noctx // the Group ends it
	p.cmd.Env = append(os.Environ(), spec.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if spec.Log != "" {
		log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		p.cmd.Stdout, p.cmd.Stderr = log, log
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, errors.New("the process group is closed")
	}
	r := request{spec: spec, cmd: p.cmd, done: make(chan error)}
	g.requests <- r
	if err := <-r.done; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	g.all = append(g.all, p)
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
		if g.unexpected != nil && !p.asked.Load() {
			g.unexpected(p)
		}
	}()
	return p, nil
}

// Close kills every process of the Group and waits for them.
func (g *Group) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	for _, p := range g.all {
		p.Signal(syscall.SIGKILL)
	}
	for _, p := range g.all {
		<-p.done
	}
	close(g.requests)
}

// Signal sends a signal to the process and its children; an ended process is
// left alone.
func (p *Process) Signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		p.asked.Store(p.asked.Load() || s == syscall.SIGTERM || s == syscall.SIGKILL)
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // ESRCH: it has just ended
	}
}

// Stop sends SIGTERM, and SIGKILL after the grace period, and waits.
func (p *Process) Stop(grace time.Duration) {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is why an ended process ended, with the last lines of its log.
func (p *Process) Err() error {
	data, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return fmt.Errorf("%s ended (%v); its last lines:\n%s", p.name, p.cmd.ProcessState, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }
