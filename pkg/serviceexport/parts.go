package serviceexport

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"

	"crossway.dev/crossway/pkg/fleet"
)

// maxParts is how many slices on the hub one slice of a member may take: the API
// takes 1000 endpoints in one (EndpointSlice, endpoints), and the hub fewer.
const maxParts = 1000 / fleet.MaxSliceEndpoints

// PartNames are the names on the hub of the parts of one slice, whose SliceName is
// the first of them.
func PartNames(first string) []string {
	names := []string{first}
	for n := 1; n < maxParts; n++ {
		names = append(names, fmt.Sprintf("%s-p%d", first, n))
	}
	return names
}

// FirstPart is the first of the PartNames that have a name. The hash at the end of a
// SliceName has no "p", so no first part is taken for another.
func FirstPart(name string) string {
	if at := len(name) - len("-p1"); at > 0 && name[at:at+2] == "-p" && name[at+2] >= '1' && name[at+2] <= '9' {
		return name[:at]
	}
	return name
}

// parts divides endpoints into as many slices as the hub takes them in, by number; nil:
// there is none of that number. An endpoint stays in the part, and there in the place, in
// which the hub has it, so that one that comes or goes changes one part. New ones fill
// the parts that have room, by address. There is always a first part, and at most one
// part more than the endpoints need: of more, the smallest are divided among the others.
func parts(endpoints []discoveryv1.Endpoint, pushed []*discoveryv1.EndpointSlice) [][]discoveryv1.Endpoint {
	all := make([][]discoveryv1.Endpoint, maxParts)
	all[0] = []discoveryv1.Endpoint{}
	place := map[string]int{} // across all parts
	for n, p := range pushed {
		for i := 0; p != nil && i < len(p.Endpoints); i++ {
			place[addressOf(p.Endpoints[i])] = n*fleet.MaxSliceEndpoints + i
		}
	}
	fresh := []discoveryv1.Endpoint{}
	for _, e := range endpoints {
		at, known := place[addressOf(e)]
		if n := at / fleet.MaxSliceEndpoints; known && n < maxParts && len(all[n]) < fleet.MaxSliceEndpoints {
			all[n] = append(all[n], e)
		} else {
			fresh = append(fresh, e)
		}
	}
	for n := range all {
		slices.SortStableFunc(all[n], func(a, b discoveryv1.Endpoint) int { return cmp.Compare(place[addressOf(a)], place[addressOf(b)]) })
	}
	needed := max(1, (len(endpoints)+fleet.MaxSliceEndpoints-1)/fleet.MaxSliceEndpoints)
	for count(all) > needed+1 {
		n := smallest(all)
		fresh, all[n] = append(fresh, all[n]...), nil
	}
	slices.SortStableFunc(fresh, func(a, b discoveryv1.Endpoint) int { return slices.Compare(a.Addresses, b.Addresses) })
	for _, isNew := range []bool{false, true} {
		for n := range all {
			if (all[n] == nil) == isNew {
				take := min(len(fresh), fleet.MaxSliceEndpoints-len(all[n]))
				all[n], fresh = append(all[n], fresh[:take]...), fresh[take:]
			}
		}
	}
	return all
}

func count(parts [][]discoveryv1.Endpoint) (n int) {
	for _, p := range parts {
		if p != nil {
			n++
		}
	}
	return n
}

// smallest is the number of the smallest part but the first.
func smallest(parts [][]discoveryv1.Endpoint) int {
	found := 0
	for n := 1; n < len(parts); n++ {
		if parts[n] != nil && (found == 0 || len(parts[n]) < len(parts[found])) {
			found = n
		}
	}
	return found
}

func addressOf(e discoveryv1.Endpoint) string { return strings.Join(e.Addresses, " ") }
