package gossip

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/pkg/membership"
)

// Whatever another node says first, it is read or refused.
func FuzzHello(f *testing.F) {
	var valid bytes.Buffer
	if err := (hello{forBeats, "fleet", "member:a"}).write(&valid); err != nil {
		f.Fatal(err)
	}
	f.Add(valid.Bytes())
	f.Add([]byte{'b', 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := h.write(&again); err != nil || !bytes.HasPrefix(b, again.Bytes()) {
			t.Errorf("%q is read as %+v", b, h)
		}
	})
}

// Whatever Beat another node sends, it is refused or can be judged.
func FuzzBeat(f *testing.F) {
	for _, text := range []string{
		`{"node":"member:a","epoch":1,"seq":2,"address":"10.0.0.1:18002","opinions":[{"of":"member:b","age":1000}]}`,
		`{"node":"hub:h1","leaving":true}`, `{}`, `{"node":"member:a","opinions":[{"of":"member:a"},{"of":"member:a"}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var b membership.Beat
		if json.Unmarshal(text, &b) != nil || b.Check() != nil {
			return
		}
		if strings.ContainsAny(string(b.Node), "/ ") || len(b.Opinions) > membership.MaxOpinions {
			t.Errorf("%q is let through", text)
		}
		now := time.Unix(0, 0)
		table := membership.Table{}
		table.Hear(membership.Sighting{Beat: b, At: now})
		view := membership.View{Now: now.Add(time.Minute)}
		table.Verdicts(view)
		table.Ask(view)
	})
}
