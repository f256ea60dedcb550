package delta

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"
)

// Replacing a list gives the same resources as starting with the new one, and
// returns exactly the names that changed, whatever the order, and also if names
// repeat.
func TestReplaceEqualsStartingAnew(t *testing.T) {
	resources := rapid.Custom(func(t *rapid.T) Resource {
		r := Resource{
			Name:       rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
			Version:    rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "version"),
			Assignment: rapid.SampledFrom([]string{"", "x"}).Draw(t, "assignment"),
		}
		r.Body = &anypb.Any{Value: []byte(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "body"))}
		return r
	})
	versionsOf := func(d *desiredKind) map[string]string {
		out := map[string]string{}
		for name, r := range d.resources {
			out[name] = fmt.Sprint(r.version(), r.assignment)
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		var d desiredKind
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			before := versionsOf(&d)
			list := slices.Clone(d.list)
			if rapid.Bool().Draw(t, "other names") {
				list = rapid.SliceOfN(resources, 0, 4).Draw(t, "list")
			}
			for i := range list {
				if rapid.Bool().Draw(t, "changed") {
					name := list[i].Name
					list[i] = resources.Draw(t, "now")
					list[i].Name = name
				}
			}
			changed := d.replace(list)
			var alone desiredKind
			alone.replace(list)
			now := versionsOf(&d)
			if want := versionsOf(&alone); fmt.Sprint(now) != fmt.Sprint(want) {
				t.Fatalf("got %v, starting anew gives %v", now, want)
			}
			for _, name := range []string{"a", "b", "c"} {
				if got := slices.Contains(changed, name); got != (before[name] != now[name]) {
					t.Fatalf("%s returned as changed: %t; was %q, is %q", name, got, before[name], now[name])
				}
			}
			if !slices.IsSorted(changed) || len(slices.Compact(slices.Clone(changed))) != len(changed) {
				t.Fatalf("not sorted, or a name twice: %q", changed)
			}
		}
	})
}
