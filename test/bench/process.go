package bench

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticks a second of /proc/<pid>/stat: USER_HZ, 100 on every Linux that Go runs on.
const ticks = 100

// process is a running hub as /proc shows it.
type process struct {
	pid   int
	began time.Time // to 10 ms, rounded down: never after the process began
}

// findHub finds the hub's process among those of the lab, which has one.
func findHub() (process, bool) {
	hubs := findHubs()
	if len(hubs) == 0 {
		return process{}, false
	}
	return hubs[0], true
}

// hubIn is the hub that runs in a pod.
func hubIn(pod string) (process, bool) {
	hubs := findHubs()
	at := slices.IndexFunc(hubs, func(p process) bool {
		variables, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid)) // none of a process that has just ended
		return slices.Contains(strings.Split(string(variables), "\x00"), "POD_NAME="+pod)
	})
	if at < 0 {
		return process{}, false
	}
	return hubs[at], true
}

// findHubs finds the processes of all replicas.
func findHubs() []process {
	var hubs []process
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		args, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		name, rest, _ := strings.Cut(string(args), "\x00")
		if filepath.Base(name) != "hub" || !strings.Contains(rest, "--xds-addr") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		stat, err := statOf(pid)
		if err != nil {
			continue
		}
		var boot unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
			continue
		}
		up := time.Duration(boot.Nano()) - time.Duration(stat.started)*time.Second/ticks
		hubs = append(hubs, process{pid: pid, began: time.Now().Add(-up)})
	}
	return hubs
}

// awaitHub waits for a hub other than an old one.
func awaitHub(ctx context.Context, old process) (process, error) {
	for {
		if p, ok := findHub(); ok && p.pid != old.pid {
			return p, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return process{}, fmt.Errorf("wait for the hub's process: %w", err)
		}
	}
}

type stat struct{ cpu, started uint64 } // in ticks

func statOf(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

// parseStat reads proc_pid_stat(5): utime and stime are fields 14 and 15,
// starttime is field 22. The name, field 2, may have any characters in it.
func parseStat(text string) (stat, error) {
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // from field 3 on
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("stat of a process has %d fields", len(fields)+2)
	}
	var v [3]uint64
	for i, at := range []int{14, 15, 22} {
		n, err := strconv.ParseUint(fields[at-3], 10, 64)
		if err != nil {
			return stat{}, err
		}
		v[i] = n
	}
	return stat{cpu: v[0] + v[1], started: v[2]}, nil
}

// cpu is the processor time used so far.
func (p process) cpu() time.Duration {
	s, err := statOf(p.pid)
	if err != nil {
		return 0
	}
	return time.Duration(s.cpu) * time.Second / ticks
}

// peak is the largest resident set so far, in MB (10^6 bytes).
func (p process) peak() float64 { return p.memory("VmHWM:") }

// rss is the resident set now, in MB.
func (p process) rss() float64 { return p.memory("VmRSS:") }

func (p process) memory(field string) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib * 1024 / 1e6
		}
	}
	return 0
}

// resetPeak resets the peak to the present size: proc_pid_clear_refs(5), value 5.
func (p process) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0)
}

// cpuByProgram is the processor time that each program of the lab has used so
// far, the bench itself too.
func cpuByProgram() map[string]time.Duration {
	out := map[string]time.Duration{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		_, name, _ := strings.Cut(string(text), "(")
		if s, err := parseStat(string(text)); err == nil {
			out[name[:strings.LastIndex(name, ")")]] += time.Duration(s.cpu) * time.Second / ticks
		}
	}
	return out
}

// cpuSince lists what each program has used since then, the largest first, and the sum.
func cpuSince(before map[string]time.Duration) (text string, sum time.Duration) {
	used := cpuByProgram()
	for name, t := range before {
		used[name] -= t
	}
	names := slices.SortedFunc(maps.Keys(used), func(a, b string) int { return cmp.Or(cmp.Compare(used[b], used[a]), strings.Compare(a, b)) })
	var parts []string
	for _, name := range names {
		if sum += used[name]; used[name] >= 50*time.Millisecond {
			parts = append(parts, fmt.Sprintf("%s %.1f", name, used[name].Seconds()))
		}
	}
	return strings.Join(parts, ", "), sum
}
