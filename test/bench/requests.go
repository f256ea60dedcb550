package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossway.dev/crossway/internal/lab"
)

var requestLine = regexp.MustCompile(`^apiserver_request_total\{.*resource="([^"]*)".*subresource="([^"]*)".*verb="(POST|PUT|PATCH|APPLY|DELETE)".*\} (\S+)$`)

// writes counts the write requests of an API server, by kind. They are most of
// what a burst costs.
func writes(ctx context.Context, c *lab.Cluster) (map[string]int, error) {
	text, err := c.Client.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics of cluster %s: %w", c.Name, err)
	}
	out := map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := requestLine.FindStringSubmatch(lines.Text())
		if m == nil || m[1] == "leases" || m[1] == "events" {
			continue
		}
		n, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return nil, err
		}
		name := m[1]
		if m[2] != "" {
			name += "/" + m[2]
		}
		out[m[3]+" "+name] += int(n)
	}
	return out, lines.Err()
}

// since lists how many were added since before, the largest number first.
func since(before, now map[string]int) string {
	for name, n := range before {
		now[name] -= n
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(now), func(a, b string) int { return cmp.Or(cmp.Compare(now[b], now[a]), strings.Compare(a, b)) }) {
		if now[name] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", now[name], name))
		}
	}
	return strings.Join(parts, ", ")
}

// calm is how many writes within calmSpan, in two clusters, still count as none:
// the status of MemberClusters is written all the time.
const (
	calm     = 5
	calmSpan = 2 * time.Second
)

// quiet waits until the hub sends nothing and statuses, which come last, are
// written.
func (b *Bench) quiet(ctx context.Context) error {
	if err := b.log.Quiet(ctx, 3*time.Second); err != nil {
		return err
	}
	before, err := b.written(ctx)
	for err == nil {
		if err = pause(ctx, calmSpan); err != nil {
			return err
		}
		var now int
		if now, err = b.written(ctx); now-before < calm {
			return err
		}
		before = now
	}
	return err
}

// written counts the writes in the clusters of hub and real member.
func (b *Bench) written(ctx context.Context) (int, error) {
	sum := 0
	for _, c := range []*lab.Cluster{b.fleet.Hub, b.fleet.Members[realMember]} {
		w, err := writes(ctx, c)
		if err != nil {
			return 0, err
		}
		for _, n := range w {
			sum += n
		}
	}
	return sum, nil
}
