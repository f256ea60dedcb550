package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/apimachinery/pkg/util/rand"
)

// container runs one container of a pod, again and again as the pod's
// restartPolicy says.
type container struct {
	w      *worker
	spec   v1.Container
	isInit bool

	launching sync.Mutex // held while a process is made, and by who stops it

	// Guarded by w.mu:
	state, last v1.ContainerState
	ready       bool
	restarts    int32
	id          string
	process     *sandboxed // nil when nothing runs
	downUntil   time.Time
}

func newContainer(w *worker, spec v1.Container, isInit bool) *container {
	return &container{w: w, spec: spec, isInit: isInit, state: waiting(creating, "")}
}

const creating = "ContainerCreating" // the reason of a container that has not been tried yet

func waiting(reason, message string) v1.ContainerState {
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// set changes the container's state under the pod's lock.
func (c *container) set(change func()) {
	defer c.w.touch()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	change()
}

// loop runs the container until it ends for good (true: an init container that
// succeeded) or ctx does.
func (c *container) loop(ctx context.Context) bool {
	for backoff := time.Duration(0); c.pause(ctx, backoff); backoff = nextBackoff(backoff) {
		var p *sandboxed
		err := guard(func() (err error) {
			p, err = c.launch(ctx)
			return err
		})
		if err != nil {
			c.failed(ctx, err)
			backoff = max(backoff, 500*time.Millisecond)
			continue
		}
		code := c.follow(p)
		if ctx.Err() != nil {
			return false
		}
		if !c.again(code) {
			return code == 0
		}
		c.set(func() {
			c.restarts++
			c.last = c.state
			c.state = waiting("CrashLoopBackOff", fmt.Sprintf("last exit code %d", code))
		})
	}
	return false
}

// failed shows why the container could not be started.
func (c *container) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // it is not to be started any more
	}
	state := waiting(reasonOf(err, "RunContainerError"), shorten(err.Error()))
	c.w.mu.Lock()
	changed := c.state.Waiting == nil || *c.state.Waiting != *state.Waiting
	c.state = state
	pod := c.w.pod
	c.w.mu.Unlock()
	if changed {
		c.w.event(pod, state.Waiting.Reason, fmt.Sprintf("container %s: %v", c.spec.Name, err))
		c.w.touch()
	}
}

// nextBackoff is 0 for the first restart, then 1 s, 2 s, ... 10 s; a kubelet's
// 10 s to 5 min would only make tests slow.
func nextBackoff(d time.Duration) time.Duration { return min(max(2*d, time.Second), 10*time.Second) }

func (c *container) again(code int32) bool {
	switch c.w.spec.RestartPolicy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return code != 0
	}
	return !c.isInit || code != 0
}

// pause waits out the backoff and the time that Kill keeps the pod down.
func (c *container) pause(ctx context.Context, backoff time.Duration) bool {
	c.w.mu.Lock()
	wait := max(backoff, time.Until(c.downUntil))
	c.w.mu.Unlock()
	if wait <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// follow watches a running process to its end, probing its readiness, and
// returns its exit code.
func (c *container) follow(p *sandboxed) int32 {
	began := metav1.Now()
	c.set(func() {
		c.id = "lab://" + rand.String(16)
		c.state = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: began}}
	})
	probing, end := context.WithCancel(context.Background())
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		if c.isInit {
			return
		}
		err := guard(func() error {
			c.probe(probing)
			return nil
		})
		if err != nil {
			c.w.explain("KubeletError", fmt.Sprintf("readiness probe of %s: %v", c.spec.Name, err))
		}
	}()
	<-p.done
	end()
	<-probed
	code, reason := int32(p.code), "Completed"
	if code != 0 {
		reason = "Error"
	}
	c.set(func() {
		c.process, c.ready = nil, false
		c.state = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, StartedAt: began, FinishedAt: metav1.Now(), ContainerID: c.id,
		}}
	})
	return code
}

// launch makes the container's process.
func (c *container) launch(ctx context.Context) (*sandboxed, error) {
	image, err := c.w.k.Images.find(c.spec.Image)
	if err != nil {
		return nil, because("ErrImagePull", err)
	}
	env, err := c.environment(image)
	if err != nil {
		return nil, because("CreateContainerConfigError", err)
	}
	args := commandLine(image, c.spec, env)
	if len(args) == 0 {
		return nil, fmt.Errorf("neither the container nor the image %s has a command", c.spec.Image)
	}
	mounts, err := c.w.volumes.mounts(c.spec)
	if err != nil {
		return nil, because("CreateContainerConfigError", err)
	}
	log, err := openLog(c.logFile())
	if err != nil {
		return nil, err
	}
	c.launching.Lock()
	defer c.launching.Unlock()
	if ctx.Err() != nil {
		log.Close()
		return nil, ctx.Err()
	}
	p, err := launch(sandbox{
		ns: c.w.ns(), root: filepath.Join(c.w.dir(), "root-"+c.spec.Name), args: args, env: envList(env), dir: c.spec.WorkingDir,
		hostname: c.w.hostname(), files: c.w.etcFiles(), image: image, mounts: mounts, security: securityOf(c.w.spec, c.spec), log: log,
	})
	if err != nil {
		log.Close()
		return nil, err
	}
	c.w.mu.Lock()
	c.process = p
	c.w.mu.Unlock()
	return p, nil
}

// current is the running process, or nil. A launch under way is waited for.
func (c *container) current() *sandboxed {
	c.launching.Lock()
	defer c.launching.Unlock()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.process
}

// stop ends the running process: preStop, SIGTERM, SIGKILL at the deadline. As
// a kubelet does, it leaves at least 2 s after preStop, unless the deadline had
// passed from the beginning (grace period 0).
func (c *container) stop(deadline time.Time) {
	p := c.current()
	if p == nil {
		return
	}
	if time.Now().Before(deadline) {
		c.preStop(p, deadline)
		if least := time.Now().Add(2 * time.Second); deadline.Before(least) {
			deadline = least
		}
		p.terminate()
	}
	select {
	case <-p.done:
	case <-c.w.gone:
	case <-time.After(time.Until(deadline)):
	}
	p.kill()
	<-p.done
}

func (c *container) preStop(p *sandboxed, deadline time.Time) {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PreStop == nil {
		return
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-p.done:
		case <-c.w.gone:
		}
		cancel()
	}()
	hook := c.spec.Lifecycle.PreStop
	err := guard(func() error {
		switch {
		case hook.Sleep != nil:
			sleep(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
		case hook.Exec != nil:
			return c.exec(ctx, p, execution{args: hook.Exec.Command})
		case hook.HTTPGet != nil:
			return c.httpGet(ctx, hook.HTTPGet)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		c.w.k.Log.Warn("preStop hook failed", "pod", c.w.namespace+"/"+c.w.name, "container", c.spec.Name, "error", err)
	}
}

func (c *container) crash(down time.Duration) {
	c.set(func() { c.downUntil = time.Now().Add(down) })
	if p := c.current(); p != nil {
		p.kill()
	}
}

// exec runs a command in the running container, with the container's
// environment.
func (c *container) exec(ctx context.Context, p *sandboxed, e execution) error {
	image, err := c.w.k.Images.find(c.spec.Image)
	if err != nil {
		return err
	}
	env, err := c.environment(image)
	if err != nil {
		return err
	}
	e.env = envList(env)
	return p.exec(ctx, e)
}

// exitCode is the exit code of an ended command. A command killed by a signal
// has 128 plus its number, as in a shell and a container runtime. ErrWaitDelay
// means success, while a grandchild holds the log open.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
	return 255
}
