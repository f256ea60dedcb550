package request

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Processors: the Envoys have one, clients and endpoints the other.
const (
	envoyProcessor = "0"
	otherProcessor = "1"
)

// process is a program on one processor.
type process struct {
	cmd *exec.Cmd
	err bytes.Buffer
}

// start runs a program until stop; its standard output goes to a file.
func start(ctx context.Context, processor, stdout, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, "taskset", append([]string{"-c", processor, program}, args...)...)}
	out, err := os.Create(stdout)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, p.cmd.Start()
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// cpu is the time that all threads have run so far: the first number of proc_pid_schedstat(5), in nanoseconds.
func (p *process) cpu() (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err == nil && len(files) == 0 {
		err = errors.New("the kernel has no schedstat, or the process has ended")
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, err
}

// awaitPort waits until somebody listens.
func awaitPort(ctx context.Context, address string) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", address, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// nginx answers for all endpoints: 300 bytes, 64 KiB from /64k, and after it has read the body of a POST.
const nginx = `
master_process off; daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_buffer_size 128k; server_tokens off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  upstream inner { server unix:%[1]s/inner.sock; keepalive 64; }
  server { listen unix:%[1]s/inner.sock; location / { return 200 "read"; } }
  server {
    %[2]s
    location / { return 200 "%[3]s"; }
    location = /64k { root %[1]s; }
    location = /post { proxy_pass http://inner; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Content-Length ""; proxy_pass_request_body off; }
  }
}
`

// largeBody is the size of large bodies, of requests and of answers.
const largeBody = 64 << 10

func startUpstreams(ctx context.Context, dir string) (*process, error) {
	var listen strings.Builder
	for _, u := range upstreams {
		fmt.Fprintf(&listen, "listen %s; ", u)
	}
	config := filepath.Join(dir, "nginx.conf")
	err := os.WriteFile(config, fmt.Appendf(nil, nginx, dir, listen.String(), strings.Repeat("x", 300)), 0o600)
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "64k"), bytes.Repeat([]byte("x"), largeBody), 0o644))
	if err != nil {
		return nil, err
	}
	program, err := exec.LookPath("/usr/sbin/nginx")
	if err != nil {
		return nil, err
	}
	if conn, err := new(net.Dialer).DialContext(ctx, "tcp", upstreams[0].String()); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("another program, perhaps another bench, listens on %s", upstreams[0])
	}
	p, err := start(ctx, otherProcessor, filepath.Join(dir, "nginx.out"), program, "-e", filepath.Join(dir, "nginx.log"), "-c", config)
	if err != nil {
		return nil, err
	}
	return p, awaitPort(ctx, upstreams[0].String())
}
