package membership

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/internal/testkit/gossipkit"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
)

// NodeFlag is the argument with which the bench runs as one agent, see RunNode.
const NodeFlag = "--membership-node"

// spec is what an agent in a process of its own needs; it comes over standard input.
type spec struct {
	Name    membership.Name `json:"name"`
	Address string          `json:"address"`
	Hubs    []string        `json:"hubs"`
	PEM     string          `json:"pem"` // certificate, key and CA
	// Burn is how many goroutines compute without a pause.
	Burn int `json:"burn"`
}

// agent is an agent in a process of its own.
type agent struct {
	cmd  *exec.Cmd
	spec spec
}

// startAgent starts the bench's program as an agent.
func startAgent(ctx context.Context, program string, fleet *gossipkit.Fleet, s spec) (*agent, error) {
	text, err := fleet.CA.PEM(s.Name.URI().String(), time.Hour)
	if err != nil {
		return nil, err
	}
	s.PEM = text
	input, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, NodeFlag)
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(input)), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &agent{cmd, s}, cmd.Start()
}

// kill is SIGKILL.
func (a *agent) kill() {
	_ = a.cmd.Process.Kill() // it may have ended
	_ = a.cmd.Wait()         // the error is that it was killed
}

// RunNode runs an agent until ctx ends.
func RunNode(ctx context.Context, input io.Reader) error {
	var s spec
	if err := json.NewDecoder(input).Decode(&s); err != nil {
		return err
	}
	source, err := gossipkit.ParsePEM(s.PEM)
	if err != nil {
		return err
	}
	for range s.Burn {
		go burn(ctx)
	}
	node, err := gossip.New(gossip.Config{Name: s.Name, Fleet: "bench", TLS: source, Listen: s.Address, Advertise: s.Address,
		Hub: func() []string { return s.Hubs }, Log: logr.Discard()})
	if err != nil {
		return err
	}
	return node.Start(ctx)
}

// burn computes until ctx ends.
func burn(ctx context.Context) {
	x := 1.0
	for ctx.Err() == nil {
		for range 10_000_000 {
			x = math.Sqrt(x + 1)
		}
	}
	runtime.KeepAlive(x)
}
