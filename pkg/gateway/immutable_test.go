package gateway

import (
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Along a chain of changes, no function changes an Input or anything in it. The
// Memo relies on this: it takes a slice in the same memory for the same content.
func TestInputsAreNeverChanged(tb *testing.T) {
	inputs := genInput(tb)
	rapid.Check(tb, func(t *rapid.T) {
		in := bigInput(6) // one changed route is patched
		if rapid.Bool().Draw(t, "clashes") {
			in = inputs.Draw(t, "in")
		}
		var before []Input
		var content []string
		for range rapid.IntRange(2, 8).Draw(t, "changes") {
			before, content = append(before, in), append(content, contentOf(t, in))
			progress := Progress{}
			for i := range in.Gateways {
				progress[ageOf(&in.Gateways[i]).name] = Programming{Generation: in.Gateways[i].Generation, Connected: 2, Acked: 2, Unserved: []string{"y", "x"}}
			}
			result := Build(in)
			Report(result, progress)
			Allocate(in)
			for i := range before {
				must(t, contentOf(t, before[i]) == content[i], "Input %d of %d was changed", i+1, len(before))
			}
			in.Memo = result.Memo
			if rapid.IntRange(0, 3).Draw(t, "what") == 3 { // no patch
				in.Gateways = slices.Clone(in.Gateways)
				shuffle(t, in.Gateways)
			}
			in.Routes = slices.Clone(in.Routes)
			revise(t, in.Routes)
		}
	})
}

// contentOf is all that is in an Input, as text.
func contentOf(t *rapid.T, in Input) string {
	in.Memo = nil
	objects := make([]any, len(in.Routes))
	for i, route := range in.Routes {
		objects[i] = route.source
	}
	text, err := json.Marshal([]any{in, objects})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
