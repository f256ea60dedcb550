package traffic

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"crossway.dev/crossway/pkg/fleet"
)

// BackendShares is where one region's requests for one backend go.
type BackendShares struct {
	Backend fleet.Backend
	RegionShares
}

// Version is a load assignment's version on the wire: the hash of its content, and the shares in force. A hub that has
// just started learns the shares from the versions that its edges report. It reads
//
//	<hash>;ServiceImport/shop/web=us-west:666667,eu-west:333333!us-west*us-west
//
// with the held-out members after the exclamation mark and the dead ones after the asterisk, one group for each backend.
func Version(hash string, shares []BackendShares) string {
	var b strings.Builder
	b.WriteString(url.QueryEscape(hash))
	for _, s := range sortedShares(shares) {
		fmt.Fprintf(&b, ";%s/%s/%s=%s", url.QueryEscape(string(s.Backend.Kind)), url.QueryEscape(s.Backend.Name.Namespace),
			url.QueryEscape(s.Backend.Name.Name), s.text())
	}
	return b.String()
}

func sortedShares(shares []BackendShares) []BackendShares {
	return slices.SortedFunc(slices.Values(shares), func(a, b BackendShares) int { return a.Backend.Compare(b.Backend) })
}

func (s BackendShares) text() string {
	var shares []string
	for _, share := range s.Shares {
		shares = append(shares, url.QueryEscape(string(share.Cluster))+":"+strconv.FormatUint(uint64(share.Parts), 10))
	}
	return strings.Join(shares, ",") + withMark("!", s.HeldOut) + withMark("*", s.Dead)
}

// withMark lists names after a mark; nothing where there are none.
func withMark(mark string, names []fleet.ClusterName) string {
	if len(names) == 0 {
		return ""
	}
	var escaped []string
	for _, c := range names {
		escaped = append(escaped, url.QueryEscape(string(c)))
	}
	return mark + strings.Join(escaped, ",")
}

// ParseVersion returns what Version was made from; ok is false for a string that Version did not make. The strings come
// from edges, so anything may be in them. Region and Overflow are not carried.
func ParseVersion(version string) (hash string, shares []BackendShares, ok bool) {
	groups := strings.Split(version, ";")
	hash, err := url.QueryUnescape(groups[0])
	if err != nil || hash == "" {
		return "", nil, false
	}
	for _, group := range groups[1:] {
		s, ok := parseShares(group)
		if !ok {
			return "", nil, false
		}
		shares = append(shares, s)
	}
	if Version(hash, shares) != version { // one spelling only
		return "", nil, false
	}
	return hash, shares, true
}

func parseShares(group string) (BackendShares, bool) {
	var s BackendShares
	name, value, found := strings.Cut(group, "=")
	elements := strings.Split(name, "/")
	if !found || len(elements) != 3 {
		return s, false
	}
	for i, e := range elements {
		plain, err := url.QueryUnescape(e)
		if err != nil {
			return s, false
		}
		elements[i] = plain
	}
	s.Backend = fleet.Backend{Kind: fleet.BackendKind(elements[0]), Name: fleet.ServiceName{Namespace: elements[1], Name: elements[2]}}
	value, dead, hasDead := strings.Cut(value, "*")
	shares, heldOut, hasHeldOut := strings.Cut(value, "!")
	sum := uint64(0)
	for share := range strings.SplitSeq(shares, ",") {
		if shares == "" {
			break
		}
		cluster, number, _ := strings.Cut(share, ":")
		plain, err := url.QueryUnescape(cluster)
		parts, err2 := strconv.ParseUint(number, 10, 32)
		if err != nil || err2 != nil {
			return s, false
		}
		sum += parts
		s.Shares = append(s.Shares, Share{Cluster: fleet.ClusterName(plain), Parts: uint32(parts)})
	}
	ok, ok2 := true, true
	if hasHeldOut {
		s.HeldOut, ok = parseClusters(heldOut)
	}
	if hasDead {
		s.Dead, ok2 = parseClusters(dead)
	}
	sorted := slices.IsSortedFunc(s.Shares, func(a, b Share) int { return cmp.Compare(a.Cluster, b.Cluster) })
	return s, ok && ok2 && sorted && (sum == TotalParts || len(s.Shares) == 0)
}

// parseClusters reads names; ok is false where they are not sorted.
func parseClusters(text string) (names []fleet.ClusterName, ok bool) {
	for name := range strings.SplitSeq(text, ",") {
		plain, err := url.QueryUnescape(name)
		if err != nil {
			return nil, false
		}
		names = append(names, fleet.ClusterName(plain))
	}
	return names, slices.IsSorted(names)
}
