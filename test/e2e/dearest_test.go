package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// The dearest routes that one namespace may have accepted: what TestDearestRoutes and TestBudgetsBoundTheTimeOfARequest in
// pkg/lbsync/envoy find. big-0 to big-3 fill its memory, and slow-0 and its like its time on a hostname of the shop.
func dearestRoutes() (namespace string, routes []string) {
	route := func(name string, hosts []string, rules ...string) string {
		return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: greedy}
spec:
  parentRefs: [{namespace: infra, name: shared}]
  hostnames: [%s]
  rules:
  - %s
`, name, strings.Join(hosts, ", "), strings.Join(rules, "\n  - "))
	}
	long := strings.Repeat("p", 990)
	for i := range 5 {
		var hosts, matches []string
		for k := range 16 {
			hosts = append(hosts, fmt.Sprintf("h%d-big-%d.example.com", k, i))
		}
		for k := range 12 {
			matches = append(matches, fmt.Sprintf("{path: {value: /%d/%s}}", k, long))
		}
		routes = append(routes, route(fmt.Sprintf("big-%d", i), hosts,
			fmt.Sprintf("{matches: [%s], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /%s}}}]}", strings.Join(matches, ", "), long)))
	}
	for i := range 20 {
		var matches []string
		for k := range 8 {
			matches = append(matches, fmt.Sprintf(`{path: {type: RegularExpression, value: "/.*/items/.*/%d-%d"}}`, i, k))
		}
		routes = append(routes, route(fmt.Sprintf("slow-%02d", i), []string{"store.example.com"}, fmt.Sprintf("{matches: [%s]}", strings.Join(matches, ", "))))
	}
	return `
apiVersion: v1
kind: Namespace
metadata: {name: greedy, labels: {shared-gateway: "true"}}
`, routes
}

// However dear the routes of one namespace are, an edge takes at most 64 MB for them, and at most 10 ms of a processor to choose
// the route of a request, and requests of another namespace on the same hostname all succeed.
func TestDearestRoutesHurtNobody(t *testing.T) {
	const requests = 200
	namespace, routes := dearestRoutes()
	hostile := func() time.Duration {
		before := timeOfEnvoys(t)
		for range requests {
			if answer := send(t, "store.example.com", "/"+strings.Repeat("a/items/b", 3300)); !strings.HasPrefix(answer, "200") {
				t.Fatalf("a hostile request to the shop: %.200s", answer)
			}
		}
		return (timeOfEnvoys(t) - before) / requests
	}
	usual, memory := hostile(), memoryOfEnvoys(t)
	loaded(t, story.Client("us", "store.example.com", 20), 200, func() {
		apply(t, clusterNamed(t, "hub"), namespace+"---"+strings.Join(routes, "---"))
		greedy := func(name string) object { return object{"hub", "httproute", "greedy", name} }
		says(t, greedy("big-3"), "Accepted=True")
		says(t, greedy("big-4"), "Accepted=False OverBudget", "the budget of Gateway", `namespace "greedy"`)
		says(t, greedy("slow-00"), "Accepted=True")
		says(t, greedy("slow-19"), "Accepted=False OverBudget", "microseconds")
		eventually(t, "edges to serve them", func() (bool, string) {
			answer := send(t, "h0-big-3.example.com", "/0/"+strings.Repeat("p", 990))
			return strings.HasPrefix(answer, "302"), answer
		})
		for pid, now := range memoryOfEnvoys(t) {
			if grown := now - memory[pid]; memory[pid] > 0 && grown > 64<<10 {
				t.Errorf("an edge has grown by %d KiB", grown)
			}
		}
		dear := hostile()
		t.Logf("a hostile request took %s of a processor, and %s before", dear, usual)
		if dear-usual > 10*time.Millisecond {
			t.Errorf("choosing a route takes %s of a processor", dear-usual)
		}
	})
}

// send sends a request to the edges of region us, and returns the status, or what is wrong.
func send(t *testing.T, host, path string) string {
	t.Helper()
	config := story.Client("us", host, 1)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(config.URL, "/")+path, nil)
	testkit.Must(t, err)
	request.Host = host
	client := *config.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	testkit.Must(t, answer.Body.Close())
	return answer.Status
}

// envoys are the processes of the edges, by number.
func envoys(t *testing.T) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	testkit.Must(t, err)
	for _, file := range files {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == "envoy" { // others have ended meanwhile
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			testkit.Must(t, err)
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatal("there is no Envoy")
	}
	return pids
}

var residentLine = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// memoryOfEnvoys are the KiB that each edge has.
func memoryOfEnvoys(t *testing.T) map[int]int {
	t.Helper()
	memory := map[int]int{}
	for _, pid := range envoys(t) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		testkit.Must(t, err)
		found := residentLine.FindStringSubmatch(string(status))
		if found == nil {
			t.Fatalf("no VmRSS of process %d", pid)
		}
		memory[pid], err = strconv.Atoi(found[1])
		testkit.Must(t, err)
	}
	return memory
}

// timeOfEnvoys is the processor time that all edges have used (proc(5): utime and stime, in hundredths).
func timeOfEnvoys(t *testing.T) (total time.Duration) {
	t.Helper()
	for _, pid := range envoys(t) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		testkit.Must(t, err)
		_, rest, _ := strings.Cut(string(stat), ") ")
		for _, field := range strings.Fields(rest)[11:13] {
			ticks, err := strconv.Atoi(field)
			testkit.Must(t, err)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}
