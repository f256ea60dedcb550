package server

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"
)

// A list taken in place of another leaves what taking it alone would, and names
// what is not as it was, whatever the order and also where names repeat.
func TestReplaceIsAsIfAlone(t *testing.T) {
	drawn := rapid.Custom(func(t *rapid.T) Resource {
		r := Resource{
			Name:       rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"),
			Version:    rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "version"),
			Assignment: rapid.SampledFrom([]string{"", "x"}).Draw(t, "assignment"),
		}
		r.Body = &anypb.Any{Value: []byte(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "body"))}
		return r
	})
	shown := func(w *wanted) map[string]string {
		out := map[string]string{}
		for name, r := range w.resources {
			out[name] = fmt.Sprint(r.version(), r.assignment)
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		var w wanted
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			before := shown(&w)
			list := slices.Clone(w.listed)
			if rapid.Bool().Draw(t, "other names") {
				list = rapid.SliceOfN(drawn, 0, 4).Draw(t, "list")
			}
			for i := range list {
				if rapid.Bool().Draw(t, "changed") {
					name := list[i].Name
					list[i] = drawn.Draw(t, "now")
					list[i].Name = name
				}
			}
			changed := w.replace(list)
			var alone wanted
			alone.replace(list)
			now := shown(&w)
			if want := shown(&alone); fmt.Sprint(now) != fmt.Sprint(want) {
				t.Fatalf("have %v, alone it is %v", now, want)
			}
			for _, name := range []string{"a", "b", "c"} {
				if told := slices.Contains(changed, name); told != (before[name] != now[name]) {
					t.Fatalf("%s told %t: was %q, is %q", name, told, before[name], now[name])
				}
			}
			if !slices.IsSorted(changed) || len(slices.Compact(slices.Clone(changed))) != len(changed) {
				t.Fatalf("not in order, or twice: %q", changed)
			}
		}
	})
}
